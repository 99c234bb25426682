"""Solves of the policy under given settings: one chunk, or those of several robots at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import ParaPolicyError
from para_policy.execution.chunk import ActionChunk
from para_policy.planning.overruns import time_to_solve
from para_policy.planning.plan import PlannerSettings
from para_policy.planning.warm_start import Start

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


class Cancelled(ParaPolicyError):
    """The node is being taken down: no answer is wanted any more."""


@dataclass(frozen=True)
class Task:
    """A chunk that is wanted.

    Attributes:
        observation: {name: (To, *shape)}.
        stamp_ns: time of its newest observations.
        index, seed: of the chunk.
        started_s: of `time.perf_counter`, when planning began; the deadline counts from then.
        started_ns: the same on the node's clock.
        previous: the chunk before, if any.
        decided: actions, from `stamp_ns` on, that will have been executed when the chunk is ready.
        episode: of the planner, to which the chunk belongs.
    """

    observation: dict[str, NDArray[Any]]
    stamp_ns: int
    index: int
    seed: int
    started_s: float
    previous: Start | None
    started_ns: int = 0
    decided: int = 0
    episode: int = 0


@dataclass(frozen=True)
class Solution:
    """A chunk, what the policy says of it, and what it took over; see `Plan`."""

    chunk: ActionChunk
    stats: Any
    as_start: Start
    executed: int | None
    frozen: int | None
    batch: int


@dataclass(frozen=True)
class _Job:
    """A task, with what it takes over under the present settings."""

    task: Task
    executed: int | None
    frozen: int | None

    @classmethod
    def of(cls, task: Task, settings: PlannerSettings) -> _Job:
        before = task.previous
        if before is None or not settings.warm_start or settings.lockstep:
            return cls(task, None, None)
        executed = before.executed(task.stamp_ns, settings.dt_ns)
        if executed is None or settings.real_time_chunking == "none":
            return cls(task, executed, None)
        return cls(task, executed, max(min(task.decided, before.actions - executed), 0))


class Solver:
    """Calls a policy, one solve at a time, from any thread."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._cancelled = False

    def solve(self, settings: PlannerSettings, tasks: Sequence[Task]) -> list[Solution]:
        """Plan chunks, in one batch where all or none of them start from the chunk before.

        Raises:
            ParaPolicyError: when the policy refuses or fails.
        """
        jobs = [_Job.of(task, settings) for task in tasks]
        solutions: dict[int, Solution] = {}
        for warm in (True, False):
            alike = [i for i, job in enumerate(jobs) if (job.executed is not None) == warm]
            if alike:
                solved = self._solve(settings, [jobs[i] for i in alike])
                solutions |= dict(zip(alike, solved, strict=True))
        return [solutions[i] for i in range(len(jobs))]

    def attempt(self, settings: PlannerSettings, robots: int = 1) -> float:
        """Solve once from zeros for `robots`, to the end; return the seconds that it took.

        Raises:
            ParaPolicyError: when sampler, scheduler, steps and checkpoint do not go together.
        """
        config = self._policy.config
        zeros = {
            name: np.zeros(
                (config.n_obs_steps, *shape), np.uint8 if name in config.cameras else np.float64
            )
            for name, shape in config.inputs.items()
        }
        with self._lock:
            started = time.perf_counter()
            self._sample(settings, [zeros] * robots, [0] * robots)
            return time.perf_counter() - started

    def cancel(self) -> None:
        """Make the solve in progress, and every later one, end with `Cancelled` at its next round."""
        self._cancelled = True

    def _solve(self, settings: PlannerSettings, jobs: Sequence[_Job]) -> list[Solution]:
        tasks = [job.task for job in jobs]
        with self._lock:
            options = _taken_over(settings, jobs)
            if settings.deadline_s and settings.anytime and not settings.lockstep:
                spent_s = time.perf_counter() - min(task.started_s for task in tasks)
                options["deadline_s"] = time_to_solve(settings.deadline_s, spent_s)
            observations = [task.observation for task in tasks]
            result = self._sample(settings, observations, [t.seed for t in tasks], **options)
        results = [result] if len(jobs) == 1 else [result.one(i) for i in range(len(jobs))]
        return [
            self._solution(settings, *pair, len(jobs)) for pair in zip(jobs, results, strict=True)
        ]

    def _solution(self, settings: PlannerSettings, job: _Job, result: Any, batch: int) -> Solution:
        task, actions = job.task, result.actions
        if settings.n_action_steps:
            first = self._policy.config.first_action
            actions = result.prediction[first : first + settings.n_action_steps]
        chunk = ActionChunk(task.stamp_ns, settings.dt_ns, actions, id=task.index)
        start = Start(result, task.stamp_ns, settings.dt_ns, len(actions))
        return Solution(chunk, result.stats, start, job.executed, job.frozen, batch)

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
            callback=self._check,
            **options,
        )

    def _check(self, _: object) -> None:
        if self._cancelled:
            raise Cancelled("the solve was cancelled, as the node is being taken down")


def _taken_over(settings: PlannerSettings, jobs: Sequence[_Job]) -> dict[str, Any]:
    """What the policy is told of the chunks before."""
    starts = [job.task.previous for job in jobs]
    if jobs[0].executed is None:
        return {}
    options: dict[str, Any] = {
        "previous": [start.result for start in starts if start is not None],
        "executed": [job.executed for job in jobs],
        "shift_noise": settings.shift_noise,
    }
    if jobs[0].frozen is not None:
        options["frozen"] = [job.frozen for job in jobs]
        options["overlap"] = settings.real_time_chunking
    return options
