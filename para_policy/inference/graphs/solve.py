"""A solve whose rounds were recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.inference.config import Precision
from para_policy.inference.graphs.inputs import Inputs
from para_policy.inference.graphs.recording import Recorder, Work
from para_policy.inference.graphs.uses import Uses
from para_policy.inference.precision import check_output
from para_policy.samplers.guess import Guess
from para_policy.samplers.result import RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Launch

LAG = 1
"""Rounds that are launched before the stop test of a round is read: the device never waits for the
host. A round after the last one changes nothing."""


class RecordableSolve(Protocol):
    """A solve whose rounds read nothing back, and whose tensors stay.

    Attributes:
        limit: network calls that it may take; None for no limit.
        opening: rounds at the beginning that are unlike the others, and each other.
        sizes: numbers of rows, increasing, that a later round can have; 1 where all are alike.
        begins_with: size of the first round after the opening, from 1.
    """

    limit: int | None
    opening: int
    sizes: int
    begins_with: int

    def start(self, guess: Guess | None, condition: Tensor | None) -> None:
        """Begin anew, with what the tensors of the noise hold now."""
        ...

    def launch(self, k: int, denoiser: Denoiser, size: int) -> Launch | None:
        """Round `k`; after the opening all rounds of the same size are the same. With a size it is
        never None."""
        ...

    def wanted(self) -> Tensor:
        """() int64, the size that the next round needs, after the opening; 0 when no sample needs one."""
        ...

    def most_rounds(self) -> int:
        """Rounds after which every sample is done."""
        ...

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        ...

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        ...


class RecordedSolve:
    """A solve whose rounds were recorded one by one, and the first ones in a block.

    A solve of rounds that all differ, one after the other, is one block. Where rounds have several
    sizes, each is recorded, and the host waits for the number that tells which one comes next: that
    costs less than rows which nobody needs.

    Every recording is compared with the work itself once, on other values than it was recorded with.

    Args:
        solve, inputs: of a problem.
        recorder: how.
        block: rounds that are launched at once at the beginning.
        guess: as for `RecordableSolve.start`.
        precision: of the network, for the comparison.

    Raises:
        RuntimeError: if something cannot be recorded, or there is not enough memory.
        UnavailableError: if a recording does something else than the work.
    """

    def __init__(
        self,
        solve: RecordableSolve,
        inputs: Inputs,
        recorder: Recorder,
        block: int,
        guess: Guess | None,
        precision: Precision,
    ) -> None:
        self._solve, self._inputs, self._recorder = solve, inputs, recorder
        self._precision = precision
        self.limit = solve.limit
        self._wanted = torch.zeros((), dtype=torch.int64, device=inputs.noise.initial.device)
        # Where nothing comes after the opening, the opening is all there is.
        self._ends = solve.most_rounds() == solve.opening
        one_by_one = solve.limit is not None or solve.sizes > 1
        self._first = solve.opening if self._ends else 1 if one_by_one else block
        singles = () if self._ends else range(solve.opening + 1)
        rounds = {range(self._first), *(range(k, k + 1) for k in singles)}
        self._recorded = {
            (some, size): self._record(some, size, guess)
            for some in rounds
            for size in range(1, 1 + (solve.sizes if some.stop > solve.opening else 1))
        }
        self._waits = True
        self._next = 0

    def _record(self, rounds: range, size: int, guess: Guess | None) -> _Block:
        launches: list[Launch] = []

        def restart() -> None:
            self._solve.start(guess, self._inputs.condition)

        def work() -> None:
            launches.clear()
            denoiser = self._inputs.denoiser()
            for k in rounds:
                launch = self._solve.launch(k, denoiser, size)
                assert launch is not None
                launches.append(launch)
                launch.run()
            self._wanted.copy_(self._solve.wanted())

        uses = Uses()
        with uses.noted():
            replay = self._recorder.record(work, restart)
        self._check(replay, work, restart)
        rows = max(launch.rows for launch in launches)
        evals = sum(launch.rows * launch.calls for launch in launches)
        return _Block(replay, rows, sum(launch.calls for launch in launches), evals, uses)

    def _check(self, replay: Work, work: Work, restart: Work) -> None:
        # With other values: what was taken for a constant is found out. The replay comes first, so
        # that it finds no result of the work in place.
        self._inputs.disturb()
        found: list[Tensor] = []
        for run in (replay, work):
            restart()
            run()
            found.append(self._solve.info(1).trajectory.clone())
        replayed, expected = found
        check_output(replayed, expected, self._precision)

    @property
    def holds(self) -> bool:
        """Everything that the recordings address is still there."""
        return all(block.uses.hold for block in self._recorded.values())

    def start(self, denoiser: Denoiser, noise: Noise, guess: Guess | None, waits: bool) -> None:
        """Begin anew with the values of another problem of the same shapes."""
        self._inputs.fill(denoiser, noise)
        self._solve.start(guess, self._inputs.condition)
        self._next = self._solve.begins_with
        self._waits = waits

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """Who wants to know after every round must wait for it: no block then.

        Raises:
            RuntimeError: if the rounds do not end.
        """
        self._flags: deque[Callable[[], int]] = deque()
        first = 1 if self._waits and not self._ends else self._first
        yield self._launch(range(first), denoiser)
        most = self._solve.most_rounds() + LAG
        for k in range(first, most):
            if self._ends or not self._next:
                return
            last = min(k, self._solve.opening)
            yield self._launch(range(last, last + 1), denoiser)
        while self._flags:  # of rounds that were launched before their stop test was read
            self._next = self._flags.popleft()()
        if self._next and not self._ends:
            raise RuntimeError(
                f"recorded rounds went on after {most} of them, which always suffice: they do "
                "something else than was recorded; use another engine than 'cuda-graph'"
            )

    def _launch(self, rounds: range, denoiser: Denoiser) -> Launch:
        after_opening = rounds.stop > self._solve.opening
        block = self._recorded[rounds, self._next if after_opening else 1]
        lag = 0 if self._waits or self._solve.sizes > 1 else LAG

        def run() -> None:
            block.replay()
            denoiser.calls.rounds += block.calls
            denoiser.calls.evals += block.evals
            self._flags.append(self._recorder.watch(self._wanted))
            if len(self._flags) > lag:
                self._next = self._flags.popleft()()

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
    uses: Uses
