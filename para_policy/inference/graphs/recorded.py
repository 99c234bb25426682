"""Recorded solves: rounds recorded once for each shape of problem, and replayed."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.inference.graphs.recording import Recorder, Work
from para_policy.samplers.guess import Guess
from para_policy.samplers.result import RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Launch, Sampler
from para_policy.samplers.window import Choose, Rows

LAG = 1
"""Rounds that are launched before the stop test of a round is read: the device never waits for the
host. A round after the last one changes nothing."""

_KEPT = 4
"""Recordings that are kept; one more pushes out the one that was not used for longest."""


class RecordableSolve(Protocol):
    """A solve whose rounds read nothing back, and whose tensors stay.

    Attributes:
        limit: network calls that it may take; None for no limit.
        opening: rounds at the beginning that are unlike the others, and each other.
    """

    limit: int | None
    opening: int

    def start(self, guess: Guess | None, condition: Tensor | None) -> None:
        """Begin anew, with what the tensors of the noise hold now."""
        ...

    def launch(self, k: int, denoiser: Denoiser, choose: Choose) -> Launch:
        """Round `k`; after the opening all rounds are the same."""
        ...

    def alive(self) -> Tensor:
        """(batch,) samples that need rounds after the opening."""
        ...

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        ...

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        ...


class Recorded:
    """The recordings of samplers: see `Sampler.recordings`.

    A recording holds for other observations, noises, guesses and known samples of the same shapes.
    What cannot be recorded is sampled as usual, with one warning.

    Args:
        recorder: how.
        block: rounds that are launched at once at the beginning, at least 1: as many as every solve
            needs anyway.
        most_rows: larger batches are sampled as usual. There the device is busy anyway, and a
            recording, which evaluates all rows to the last round, would only add work.
    """

    def __init__(self, recorder: Recorder, block: int = 3, most_rows: int = 2048) -> None:
        self._recorder, self._block, self._most_rows = recorder, block, most_rows
        self._kept: list[_Kept] = []  # the one that was used last at the end

    def __len__(self) -> int:
        """Recordings that are kept."""
        return len(self._kept)

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
        usual = not sampler.recordable or (waits and not sampler.stops_early)
        if usual or sampler.rows(noise.batch, process.num_steps) > self._most_rows:
            return None
        facts = _facts(denoiser, noise, guess)
        kept = next(
            (
                one
                for one in self._kept
                if one.sampler is sampler
                and one.network is denoiser.network
                and one.process is process
                and one.facts == facts
            ),
            None,
        )
        if kept is None:
            solve = self._record(sampler, denoiser, process, noise, guess)
            kept = _Kept(sampler, denoiser.network, process, facts, solve)
        else:
            self._kept.remove(kept)
        self._kept = [*self._kept[1 - _KEPT :], kept]
        if kept.solve is not None:
            kept.solve.start(denoiser, noise, guess, waits)
        return kept.solve

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
            solve: Any = sampler.begin(inputs.denoiser(), process, inputs.noise, guess)
            return RecordedSolve(solve, inputs, self._recorder, self._block)
        except RuntimeError as error:  # out of memory among them
            warnings.warn(
                f"rounds are not recorded but launched one kernel at a time: {error}", stacklevel=4
            )
            return None


@dataclass(frozen=True, eq=False)
class _Kept:
    """A recording, and what it holds for."""

    sampler: Sampler
    network: object
    process: Process
    facts: tuple[Any, ...]
    solve: RecordedSolve | None


def _facts(denoiser: Denoiser, noise: Noise, guess: Guess | None) -> tuple[Any, ...]:
    x, condition = noise.initial, denoiser.condition
    shape = None if condition is None else condition.shape
    return x.shape, x.dtype, x.device, shape, denoiser.known is None, type(guess)


class RecordedSolve:
    """A solve whose rounds were recorded one by one, and the first ones in a block.

    A solve of rounds that all differ, one after the other, is one block.
    """

    def __init__(
        self, solve: RecordableSolve, inputs: Inputs, recorder: Recorder, block: int
    ) -> None:
        self._solve, self._inputs, self._recorder = solve, inputs, recorder
        self.limit = solve.limit
        self._unfinished = torch.ones((), dtype=torch.bool, device=inputs.noise.initial.device)
        # Without samples that go on after the opening, the opening is all there is.
        self._ends = solve.opening > 0 and not bool(solve.alive().any())
        self._first = solve.opening if self._ends else block if solve.limit is None else 1
        singles = () if self._ends else range(solve.opening + 1)
        self._recorded = {
            rounds: self._record(rounds)
            for rounds in {range(self._first), *(range(k, k + 1) for k in singles)}
        }
        self._waits = self._going = True

    def _record(self, rounds: range) -> _Block:
        launches: list[Launch] = []

        def work() -> None:
            launches.clear()
            denoiser = self._inputs.denoiser()
            for k in rounds:
                launches.append(self._solve.launch(k, denoiser, Rows.static))
                launches[-1].run()
            self._unfinished.copy_(self._solve.alive().any())

        replay = self._recorder.record(work)
        rows = max(launch.rows for launch in launches)
        evals = sum(launch.rows * launch.calls for launch in launches)
        return _Block(replay, rows, sum(launch.calls for launch in launches), evals)

    def start(self, denoiser: Denoiser, noise: Noise, guess: Guess | None, waits: bool) -> None:
        """Begin anew with the values of another problem of the same shapes."""
        self._inputs.fill(denoiser, noise)
        self._solve.start(guess, self._inputs.condition)
        self._waits = waits

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """Who wants to know after every round must wait for it: no block then."""
        self._flags: deque[Callable[[], bool]] = deque()
        first = 1 if self._waits and not self._ends else self._first
        yield self._launch(range(first), denoiser)
        for k in itertools.count(first):
            if self._ends or not self._going:
                return
            last = min(k, self._solve.opening)
            yield self._launch(range(last, last + 1), denoiser)

    def _launch(self, rounds: range, denoiser: Denoiser) -> Launch:
        block = self._recorded[rounds]

        def run() -> None:
            block.replay()
            denoiser.calls.rounds += block.calls
            denoiser.calls.evals += block.evals
            self._flags.append(self._recorder.watch(self._unfinished))
            known = self._waits or len(self._flags) > LAG
            self._going = self._flags.popleft()() if known else True

        return Launch(block.rows, block.calls, run)

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        return self._solve.info(rounds)

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        return self._solve.result(unfinished)


@dataclass(frozen=True)
class _Block:
    """Recorded rounds: rows of their largest network call, number of calls, rows of all calls."""

    replay: Work
    rows: int
    calls: int
    evals: int


class Inputs:
    """What differs from chunk to chunk, in tensors that stay: noise, condition, known sample.

    Attributes:
        noise: `initial` and `steps`; samplers with uniforms are not recorded.
    """

    def __init__(self, denoiser: Denoiser, noise: Noise) -> None:
        self.noise = Noise(noise.initial.clone(), noise.steps.clone())
        self._own = denoiser.with_copies()

    @property
    def condition(self) -> Tensor | None:
        """Of all samples."""
        return self._own.condition

    def fill(self, denoiser: Denoiser, noise: Noise) -> None:
        """Take over the values of another chunk of the same shapes."""
        for kept, value in (
            (self.noise.initial, noise.initial),
            (self.noise.steps, noise.steps),
            *zip(_tensors(self._own), _tensors(denoiser), strict=True),
        ):
            kept.copy_(value)

    def denoiser(self) -> Denoiser:
        """A denoiser that has yet to bind the condition: bound by the work that uses it, so that
        the binding is recorded with it."""
        return self._own.unbound()


def _tensors(denoiser: Denoiser) -> list[Tensor]:
    condition, known = denoiser.condition, denoiser.known
    return [
        *([] if condition is None else [condition]),
        *([] if known is None else [known.sample, known.weight]),
    ]
