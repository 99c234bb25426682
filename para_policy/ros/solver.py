"""One solve of the policy under given settings."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.control.chunk import ActionChunk
from para_policy.ros.overruns import time_to_solve
from para_policy.ros.plan import PlannerSettings
from para_policy.ros.warm_start import Start

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


@dataclass(frozen=True)
class Task:
    """A chunk that is wanted.

    Attributes:
        observation: {name: (To, *shape)}.
        stamp_ns: time of its newest observations.
        index, seed: of the chunk.
        started_s: of `time.perf_counter`, when planning began; the deadline counts from then.
        previous: the chunk before, if any.
    """

    observation: dict[str, NDArray[Any]]
    stamp_ns: int
    index: int
    seed: int
    started_s: float
    previous: Start | None


@dataclass(frozen=True)
class Solution:
    """A chunk, what the policy says of it, and the steps that its start was moved by (or None)."""

    chunk: ActionChunk
    stats: Any
    as_start: Start
    executed: int | None


class Solver:
    """Calls a policy, one solve at a time, from any thread."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()

    def solve(self, settings: PlannerSettings, task: Task) -> Solution:
        """Plan a chunk; raises ParaPolicyError when the policy refuses or fails."""
        executed = None
        options: dict[str, Any] = {}
        if task.previous is not None and settings.warm_start and not settings.lockstep:
            executed = task.previous.executed(task.stamp_ns, settings.dt_ns)
        if task.previous is not None and executed is not None:
            options = {"previous": task.previous.result, "executed": executed}
            options["shift_noise"] = settings.shift_noise
        with self._lock:
            if settings.deadline_s and settings.anytime and not settings.lockstep:
                spent_s = time.perf_counter() - task.started_s
                options["deadline_s"] = time_to_solve(settings.deadline_s, spent_s)
            result = self._sample(settings, task.observation, task.seed, **options)
        actions = result.actions
        if settings.n_action_steps:
            first = self._policy.config.first_action
            actions = result.prediction[first : first + settings.n_action_steps]
        chunk = ActionChunk(task.stamp_ns, settings.dt_ns, actions, id=task.index)
        start = Start(result, task.stamp_ns, settings.dt_ns)
        return Solution(chunk, result.stats, start, executed)

    def attempt(self, settings: PlannerSettings) -> float:
        """Solve once from zeros, to the end, and return the seconds that it took.

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
            self._sample(settings, zeros, seed=0)
            return time.perf_counter() - started

    def _sample(
        self,
        settings: PlannerSettings,
        observation: dict[str, NDArray[Any]],
        seed: int,
        **options: Any,
    ) -> Any:
        return self._policy.sample(
            observation,
            sampler=settings.sampler,
            seed=seed,
            scheduler=settings.scheduler,
            steps=settings.steps,
            **options,
        )
