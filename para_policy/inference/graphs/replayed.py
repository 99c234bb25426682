"""A sampler whose rounds are recorded once for each shape of problem, and replayed."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.inference.graphs.program import Loop, Program, Rounds
from para_policy.inference.graphs.recording import Recorder
from para_policy.samplers import Callback, FixedPoint, Guess, SampleResult, Sequential
from para_policy.samplers.deadline import Deadline
from para_policy.samplers.sampler import check_noise

_KEPT = 4
"""Recordings that are kept; one more pushes out the one that was not used for longest."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """The same sampler with the same answer, recorded: itself a `Sampler`.

    A recording holds for other observations, noises, guesses and known samples of the same shapes.
    What cannot be recorded is sampled as usual, with one warning.

    Attributes:
        sampler: what is recorded.
        recorder: how.
        block: rounds that are launched at once at the beginning, at least 1.
        most_rows: larger batches are sampled as usual. There the device is busy anyway, and a
            recording, which evaluates all rows to the last round, would only add work.
    """

    sampler: FixedPoint | Sequential
    recorder: Recorder
    block: int = 3
    most_rows: int = 2048
    _programs: OrderedDict[tuple[Any, ...], tuple[object, Program | None]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    @property
    def same_sample(self) -> bool:
        return self.sampler.same_sample

    @property
    def guess(self) -> Guess | None:
        """The sampler's own start, if it has one."""
        return getattr(self.sampler, "guess", None)

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """See `Sampler`."""
        check_noise(process, noise)
        loop = isinstance(self.sampler, Sequential)
        rows = noise.batch if loop else noise.batch * process.num_steps
        usual = rows > self.most_rows or (loop and (deadline is not None or callback is not None))
        program = None if usual else self._program(denoiser, process, noise, guess)
        if program is None:
            return self.sampler(
                denoiser, process, noise, guess=guess, deadline=deadline, callback=callback
            )
        return program(denoiser, noise, guess, deadline, callback)

    def _program(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> Program | None:
        held = (denoiser.network, process)  # kept alive: another object may get the same id
        facts = (noise.initial.shape, noise.initial.dtype, noise.initial.device, type(guess))
        key = (*map(id, held), *facts, _shape(denoiser.condition), denoiser.known is None)
        if key not in self._programs:
            if len(self._programs) == _KEPT:
                self._programs.popitem(last=False)
            self._programs[key] = held, self._record(denoiser, process, noise, guess)
        self._programs.move_to_end(key)
        return self._programs[key][1]

    def _record(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> Program | None:
        try:
            if isinstance(self.sampler, Sequential):
                return Loop(self.sampler, denoiser, process, noise, self.recorder)
            start = guess or self.sampler.guess
            return Rounds(self.sampler, denoiser, process, noise, start, self.recorder, self.block)
        except RuntimeError as error:  # out of memory among them
            warnings.warn(
                f"rounds are not recorded but launched one kernel at a time: {error}", stacklevel=4
            )
            return None


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape
