"""Solves of the policy: one chunk, or those of several robots at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import ParaPolicyError
from para_policy.execution.chunk import ActionChunk
from para_policy.planning.chunks import ChunkRequest, ChunkSolution, PreviousChunk
from para_policy.planning.settings import PlannerSettings

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.policies import PolicyConfig

_LEAST_S = 1e-6
"""A solve always makes one round, however late it is: there is no answer without."""


class Cancelled(ParaPolicyError):
    """The node is being taken down: no answer is wanted any more."""


@dataclass(frozen=True)
class _Job:
    """A request, with what it takes over from the chunk before.

    With real-time chunking that is the chunk that the robot goes on with: where none of its actions
    is left nothing is committed, and nothing else is known of it that the robot will have done.
    """

    request: ChunkRequest
    executed: int | None
    committed: int | None

    @classmethod
    def of(cls, request: ChunkRequest) -> _Job:
        settings, before = request.settings, request.previous
        if before is None or not settings.warm_start or settings.lockstep:
            return cls(request, None, None)
        executed = before.executed(request.stamp_ns, settings.dt_ns)
        if executed is None or settings.real_time_chunking == "none":
            return cls(request, executed, None)
        left = before.left(executed)
        if not left:
            return cls(request, None, None)
        return cls(request, executed, max(min(request.committed, left), 0))


class Solver:
    """Calls a policy, one solve at a time, from any thread."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._cancelled = False

    def solve(self, requests: Sequence[ChunkRequest], share: float = 1.0) -> list[ChunkSolution]:
        """Plan chunks, in one batch where all have the same settings and all or none of them start
        from the chunk before. Of several batches none takes the time of those after it; what it leaves
        is theirs.

        Args:
            share: of the time until the deadline that may be taken.

        Raises:
            ParaPolicyError: when the policy refuses or fails.
        """
        jobs = [_Job.of(request) for request in requests]
        batches: dict[tuple[int, bool], list[int]] = {}
        for i, job in enumerate(jobs):
            kind = (id(job.request.settings), job.executed is not None)
            batches.setdefault(kind, []).append(i)
        solutions: dict[int, ChunkSolution] = {}
        # Those that start from the chunk before need least.
        in_order = sorted(batches, key=lambda kind: not kind[1])
        for left, kind in zip(range(len(batches), 0, -1), in_order, strict=True):
            alike = batches[kind]
            solved = self._solve([jobs[i] for i in alike], share / left)
            solutions |= dict(zip(alike, solved, strict=True))
        return [solutions[i] for i in range(len(jobs))]

    def attempt(self, settings: PlannerSettings, robots: int = 1) -> float:
        """Solve once from zeros for `robots`, to the end; return the seconds that it took.

        Raises:
            ParaPolicyError: when sampler, scheduler, steps and checkpoint do not go together.
        """
        with self._lock:
            started = time.perf_counter()
            self._sample(settings, [self._zeros()] * robots, [0] * robots)
            return time.perf_counter() - started

    def prepare(self, settings: PlannerSettings, robots: int = 1) -> None:
        """Where rounds are recorded, record all that `solve` can meet: each number of robots, with and
        without a chunk before. No later solve has to wait for it.

        As far as the memory for recordings goes; the largest batches, which gain least, come last.

        Raises:
            ParaPolicyError: as `attempt`.
        """
        recordings = settings.sampler.recordings
        if recordings is None:
            return
        request = ChunkRequest(
            settings=replace(settings, deadline_s=0.0),
            observation=self._zeros(),
            stamp_ns=0,
            index=0,
            seed=0,
            started_s=time.perf_counter(),
            previous=None,
            committed=1,
        )
        with recordings.prepared():
            for batch in range(1, robots + 1):
                if recordings.full:
                    break
                first = self.solve([request] * batch)
                again = [
                    replace(request, previous=one.as_previous, stamp_ns=settings.dt_ns)
                    for one in first
                ]
                self.solve(again)

    def cancel(self) -> None:
        """Make the solve in progress, and every later one, end with `Cancelled` before its next rounds."""
        self._cancelled = True

    def _zeros(self) -> dict[str, NDArray[Any]]:
        """An observation."""
        config = self._policy.config
        return {
            name: np.zeros(
                (config.n_obs_steps, *shape), np.uint8 if name in config.cameras else np.float64
            )
            for name, shape in config.inputs.items()
        }

    def _solve(self, jobs: Sequence[_Job], share: float) -> list[ChunkSolution]:
        """One batch of the same settings; `share` as for `solve`."""
        requests = [job.request for job in jobs]
        settings = requests[0].settings
        with self._lock:
            options = _taken_over(jobs, self._policy.config)
            if settings.deadline_s and settings.anytime and not settings.lockstep:
                spent_s = time.perf_counter() - min(request.started_s for request in requests)
                options["deadline_s"] = max(share * (settings.deadline_s - spent_s), _LEAST_S)
            observations = [request.observation for request in requests]
            seeds = [request.seed for request in requests]
            result = self._sample(settings, observations, seeds, **options)
        results = [result] if len(jobs) == 1 else [result.one(i) for i in range(len(jobs))]
        return [self._solution(*pair, len(jobs)) for pair in zip(jobs, results, strict=True)]

    def _solution(self, job: _Job, result: Any, batch: int) -> ChunkSolution:
        request, actions = job.request, result.actions
        settings = request.settings
        if settings.n_action_steps:
            first = self._policy.config.first_action
            actions = result.prediction[first : first + settings.n_action_steps]
        chunk = ActionChunk(request.stamp_ns, settings.dt_ns, actions, id=request.index)
        before_next = PreviousChunk(result, request.stamp_ns, settings.dt_ns, len(actions))
        return ChunkSolution(chunk, result.stats, before_next, job.executed, job.committed, batch)

    def _sample(
        self,
        settings: PlannerSettings,
        observations: Sequence[dict[str, NDArray[Any]]],
        seeds: Sequence[int],
        **options: Any,
    ) -> Any:
        """A single observation is not batched: kernels of another size may round differently."""
        alone = len(seeds) == 1
        stacked = {
            name: np.stack([observation[name] for observation in observations])
            for name in observations[0]
        }
        return self._policy.sample(
            observations[0] if alone else stacked,
            sampler=settings.sampler,
            seed=seeds[0] if alone else seeds,
            scheduler=settings.scheduler,
            steps=settings.steps,
            poll=self._check,
            **options,
        )

    def _check(self) -> None:
        if self._cancelled:
            raise Cancelled("the solve was cancelled, as the node is being taken down")


def _taken_over(jobs: Sequence[_Job], config: PolicyConfig) -> dict[str, Any]:
    """Options that tell the policy of the chunks before."""
    settings = jobs[0].request.settings
    before = [job.request.previous for job in jobs]
    if jobs[0].executed is None:
        return {}
    options: dict[str, Any] = {
        "previous": [chunk.result for chunk in before if chunk is not None],
        "executed": [job.executed for job in jobs],
        "shift_noise": settings.shift_noise,
    }
    if jobs[0].committed is not None:
        options["frozen"] = [job.committed for job in jobs]
        options["overlap"] = settings.real_time_chunking
        if settings.real_time_chunking == "soft":
            options["pulled"] = settings.action_coordinates.flat(config.action_dim)
    return options
