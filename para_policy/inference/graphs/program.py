"""Recorded samplers for one shape of problem."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.inference.graphs.inputs import Inputs
from para_policy.inference.graphs.recording import Recorder, Work
from para_policy.samplers import Callback, FixedPoint, Guess, SampleResult, Sequential, Status
from para_policy.samplers.deadline import Deadline
from para_policy.samplers.pace import Pace
from para_policy.samplers.rows import Rows
from para_policy.samplers.solve import Solve

LAG = 1
"""Rounds that are launched before the stop test of a round is read: the device never waits for the
host. A round after the last one changes nothing."""


class Program(Protocol):
    """A sampler that was recorded; called like it, with other values of the same shapes."""

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Noise,
        guess: Guess | None,
        deadline: Deadline | None,
        callback: Callback | None,
    ) -> SampleResult: ...


class Loop:
    """All steps of `Sequential` in one recording."""

    def __init__(
        self,
        sampler: Sequential,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        recorder: Recorder,
    ) -> None:
        self._sampler = sampler
        self._inputs = Inputs(denoiser, noise)
        self._process = process.to(noise.initial.device, noise.initial.dtype)
        self._X = torch.zeros_like(noise.initial[:, None]).repeat_interleave(
            process.num_steps + 1, dim=1
        )
        self._replay = recorder.record(self._work)

    def _work(self) -> None:
        denoiser, noise = self._inputs.denoiser(), self._inputs.noise
        self._X.copy_(self._sampler.states(denoiser, self._process, noise))

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Noise,
        guess: Guess | None,
        deadline: Deadline | None,
        callback: Callback | None,
    ) -> SampleResult:
        self._inputs.fill(denoiser, noise)
        self._replay()
        return self._sampler.result(self._X.clone())


class Rounds:
    """The rounds of a `FixedPoint`, recorded one by one, and the first ones in a block.

    Args:
        block: rounds in the first recording, at least 1: as many as every solve needs anyway.
    """

    def __init__(
        self,
        parts: FixedPoint,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        guess: Guess,
        recorder: Recorder,
        block: int,
    ) -> None:
        self._parts, self._recorder = parts, recorder
        self._inputs = Inputs(denoiser, noise)
        self._solve = Solve(parts, process, self._inputs.noise, guess)
        self._unfinished = torch.ones((), dtype=torch.bool, device=noise.initial.device)
        self._drafts = parts.switching.drafts if parts.switching else 0
        self._first = block if parts.max_rounds is None else 1
        self._recorded = {
            sweeps: self._record(sweeps)
            for sweeps in {range(self._first), *(range(k, k + 1) for k in range(self._drafts + 1))}
        }

    def _record(self, sweeps: range) -> _Recorded:
        sizes: list[int] = []

        def work() -> None:
            sizes.clear()
            denoiser = self._inputs.denoiser()
            for k in sweeps:
                rows = self._solve.rows(k, Rows.static)
                self._solve.sweep(denoiser, rows)
                sizes.extend([len(rows.at)] * len(rows.networks))
            self._unfinished.copy_(self._solve.alive().any())

        replay = self._recorder.record(work)
        return _Recorded(replay, max(sizes), len(sizes))

    def _launches(self, first: int) -> Iterator[_Recorded]:
        """`first` rounds at once, then single ones; those after the drafts are all the same."""
        yield self._recorded[range(first)]
        for k in itertools.count(first):
            last = min(k, self._drafts)
            yield self._recorded[range(last, last + 1)]

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Noise,
        guess: Guess | None,
        deadline: Deadline | None,
        callback: Callback | None,
    ) -> SampleResult:
        solve, limit = self._solve, self._parts.max_rounds
        self._inputs.fill(denoiser, noise)
        solve.start(guess or self._parts.guess)
        # Who wants to know after every round must wait for it.
        waits = callback is not None or deadline is not None
        pace, flags, calls = Pace(deadline), deque[Callable[[], bool]](), 0
        for launch in self._launches(1 if waits else self._first):
            if limit and calls + launch.calls > limit:
                return solve.result(Status.ROUND_BUDGET)
            if not pace.fits(launch.rows, launch.calls):
                return solve.result(Status.DEADLINE)
            pace.start()
            launch.replay()
            flags.append(self._recorder.watch(self._unfinished))
            unfinished = flags.popleft()() if waits or len(flags) > LAG else True
            pace.stop(launch.rows, launch.calls)
            calls += launch.calls
            denoiser.rounds += launch.calls
            denoiser.evals += launch.calls * launch.rows
            if callback is not None:
                callback(solve.info(calls))
            if not unfinished:
                break
        return solve.result(Status.CONVERGED)


@dataclass(frozen=True)
class _Recorded:
    """Rounds, with the rows of their largest network call and the number of calls."""

    replay: Work
    rows: int
    calls: int
