"""Recorded solves: rounds recorded once for each kind of problem, and replayed."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.inference.config import Precision
from para_policy.inference.failures import UnavailableError
from para_policy.inference.graphs.inputs import Inputs
from para_policy.inference.graphs.recording import Recorder
from para_policy.inference.graphs.solve import RecordedSolve
from para_policy.samplers.guess import Guess
from para_policy.samplers.sampler import Sampler


class Recorded:
    """The recordings of samplers: see `Sampler.recordings`.

    A recording holds for other observations, noises, guesses and known samples of the same shapes,
    as long as the engines that it calls keep their buffers. What cannot be recorded is sampled as
    usual, with one warning.

    Args:
        recorder: how.
        block: rounds that are launched at once at the beginning, at least 1: as many as every solve
            needs anyway.
        most_rows: larger batches are sampled as usual. There the device is busy anyway, and a
            recording, which evaluates all rows to the last round, would only add work.
        most: recordings that are kept; one more pushes out the one that was not used for longest.
        most_bytes: memory; once they take so much together, those not used for longest make room.
        precision: of the network.

    Attributes:
        left_out: problems that were sampled as usual: they could not be recorded, there was no room,
            or recording was over.
    """

    def __init__(
        self,
        recorder: Recorder,
        block: int = 3,
        most_rows: int = 2048,
        most: int = 64,
        most_bytes: int = 2**31,
        precision: Precision = "float32",
    ) -> None:
        self._recorder, self._block, self._most_rows = recorder, block, most_rows
        self._most, self._most_bytes, self._precision = most, most_bytes, precision
        self._kept: list[_Kept] = []  # the one that was used last at the end
        self._records = self._makes_room = True
        self.left_out = 0

    def __len__(self) -> int:
        """Recordings that are kept."""
        return sum(one.solve is not None for one in self._kept)

    @property
    def memory_bytes(self) -> int:
        """What the recordings take, as far as it can be known."""
        return sum(one.memory_bytes for one in self._kept)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Record what is solved meanwhile, as far as there is room, and nothing more afterwards.

        A robot must not wait for a recording in the middle of its work.
        """
        self._records, self._makes_room = True, False
        try:
            yield
        finally:
            self._records = False

    @property
    def full(self) -> bool:
        """There is no room for another one."""
        return len(self._kept) >= self._most or self.memory_bytes >= self._most_bytes

    def find(
        self,
        sampler: Sampler,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        guess: Guess | None,
        *,
        waits: bool,
    ) -> RecordedSolve | None:
        """See `samplers.sampler.Recordings`."""
        # A block of known length is not left before its end.
        if not sampler.recordable or (waits and not sampler.stops_early):
            return None
        solve = self._of(sampler, denoiser, process, noise, guess)
        if solve is None:
            self.left_out += 1
        else:
            solve.start(denoiser, noise, guess, waits)
        return solve

    def _of(
        self,
        sampler: Sampler,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        guess: Guess | None,
    ) -> RecordedSolve | None:
        """The recording of such problems, made now if there is none."""
        if sampler.rows(noise.batch, process.num_steps) > self._most_rows:
            return None
        facts = _facts(sampler, denoiser, noise, guess)
        self._kept = [one for one in self._kept if one.holds]
        kept = next(
            (
                one
                for one in self._kept
                if one.sampler() is sampler
                and one.network is denoiser.network
                and one.process is process
                and one.facts == facts
            ),
            None,
        )
        if kept is not None:
            self._kept.remove(kept)
        elif not self._records or (self.full and not self._makes_room):
            return None
        else:
            while self._kept and self.full:
                del self._kept[0]
            before = self._recorder.memory_bytes()
            solve = self._record(sampler, denoiser, process, noise, guess)
            taken = max(self._recorder.memory_bytes() - before, 0)
            kept = _Kept(weakref.ref(sampler), denoiser.network, process, facts, solve, taken)
        self._kept.append(kept)
        return kept.solve

    # What is kept could not be written to outside of inference mode.
    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _record(
        self,
        sampler: Sampler,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        guess: Guess | None,
    ) -> RecordedSolve | None:
        try:
            inputs = Inputs(denoiser, noise)
            # Not by way of the sampler's recordings: what nobody uses is to be given back at once.
            parts = replace(sampler, recordings=None)
            solve: Any = parts.begin(inputs.denoiser(), process, inputs.noise, guess)
            return RecordedSolve(solve, inputs, self._recorder, self._block, guess, self._precision)
        except (RuntimeError, UnavailableError) as error:  # out of memory among them
            warnings.warn(
                f"rounds are not recorded but launched one kernel at a time: {error}", stacklevel=5
            )
            return None


@dataclass(frozen=True, eq=False)
class _Kept:
    """A recording, what it holds for, and what it takes; None of what cannot be recorded."""

    sampler: weakref.ref[Sampler]
    network: object
    process: Process
    facts: tuple[Any, ...]
    solve: RecordedSolve | None
    memory_bytes: int

    @property
    def holds(self) -> bool:
        if self.sampler() is None:
            return False
        return self.solve is None or self.solve.holds


def _facts(
    sampler: Sampler, denoiser: Denoiser, noise: Noise, guess: Guess | None
) -> tuple[Any, ...]:
    x, condition = noise.initial, denoiser.condition
    shape = None if condition is None else condition.shape
    start = sampler.told_apart(guess)
    return x.shape, x.dtype, x.device, shape, denoiser.known is None, start
