"""When to plan, from what, and with which noise. Thread-safe, and free of ROS."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.control.chunk import ActionChunk
from para_policy.control.history import ObservationHistory
from para_policy.control.seeding import chunk_seed

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.samplers import Sampler


@dataclass(frozen=True)
class PlannerSettings:
    """How to plan.

    Attributes:
        sampler: solver of the denoising chain.
        scheduler, steps: None keeps the checkpoint's.
        dt_ns: time between actions, and between the observations that the policy sees.
        max_age_ns: an older observation is stale: the robot holds.
        deadline_s: a longer planning time counts as a miss; 0 counts none.
        lockstep: simulated time that waits for each command. Then nothing is ever late, and a
            chunk is replaced exactly when its last action has been played.
    """

    sampler: Sampler
    scheduler: str | None
    steps: int | None
    dt_ns: int
    max_age_ns: int
    deadline_s: float = 0.0
    lockstep: bool = False


@dataclass(frozen=True)
class Plan:
    """One planned chunk and what it took."""

    chunk: ActionChunk
    stats: Any
    latency_s: float
    deadline_misses: int


class Planner:
    """Feeds a policy with observations and places its actions on the clock.

    `observe`, `reject` and `reset` return at once and may be called from callbacks; `plan` takes
    as long as the network does and belongs into one worker thread.
    """

    def __init__(self, policy: DiffusionPolicy, settings: PlannerSettings, seed: int) -> None:
        config = policy.config
        self._policy = policy
        self._settings = settings
        self._shapes = {name: tuple(shape) for name, shape in config.inputs.items()}
        self._history = ObservationHistory(
            self._shapes, config.n_obs_steps, settings.dt_ns, max_gap_ns=settings.max_age_ns
        )
        self._lock = threading.Lock()
        self._faults: dict[str, str] = {}
        self._latency_ns = 0
        self._misses = 0
        self._episode = 0
        self._next_index = 0
        self._retired: ActionChunk | None = None
        self._chunk: ActionChunk | None = None
        self._begin_episode(seed)

    def warm_up(self) -> None:
        """Plan once from zeros: finds bad settings early and keeps the first real plan fast.

        Raises:
            ParaPolicyError: when sampler, scheduler, steps and checkpoint do not go together.
        """
        config = self._policy.config
        zeros = {
            name: np.zeros(
                (config.n_obs_steps, *shape), np.uint8 if name in config.cameras else np.float64
            )
            for name, shape in self._shapes.items()
        }
        for _ in range(2):  # the first call also pays for lazy initialisation
            started = time.perf_counter()
            self._sample(zeros, seed=0)
            self._latency_ns = round(1e9 * (time.perf_counter() - started))

    def observe(self, name: str, stamp_ns: int, values: NDArray[Any]) -> None:
        """Add one observation of input `name`; flat values take the input's shape.

        Pixels are uint8 and stay so.

        Raises:
            ParaPolicyError: when shape or values are wrong. The input then counts as faulty, and
                nothing is planned, until its next good observation.
        """
        shape = self._shapes[name]
        with self._lock:
            if self._retired is not None and self._retired.covers(stamp_ns):
                return  # a straggler of the episode that `reset` has ended
            if self._time_restarted(stamp_ns):
                self._begin_episode(self._seed)
            fits = values.size == int(np.prod(shape))
            self._history.append(name, stamp_ns, values.reshape(shape) if fits else values)
            self._faults.pop(name, None)

    def reject(self, name: str, reason: str) -> None:
        """Input `name` delivers something unusable: plan nothing until it delivers again."""
        with self._lock:
            self._faults[name] = reason

    def reset(self, seed: int) -> None:
        """Begin a new episode: no observations, chunk 0 next, noise from `seed`.

        In lockstep a late message of the old episode must not become the first of the new one.
        Such messages carry times that the last chunk covers, as the simulator has not gone
        beyond it, and are ignored from now on.
        """
        with self._lock:
            self._retired = self._chunk if self._settings.lockstep else None
            self._begin_episode(seed)

    def hold_reason(self, now_ns: int) -> str | None:
        """Why nothing can be planned now; None when all is well."""
        with self._lock:
            return self._hold_reason(now_ns)

    def observation_age_s(self, now_ns: int) -> float | None:
        with self._lock:
            newest = self._history.newest_common_ns()
        return None if newest is None else (now_ns - newest) / 1e9

    def plan(self, now_ns: int) -> Plan | None:
        """The next chunk, planned for the newest time that all inputs have reached.

        Returns:
            None when there is a reason to hold, when the chunk in force still lasts, or when
            `reset` was called meanwhile.
        Raises:
            ParaPolicyError: when the policy refuses or fails; the chunk counter stays.
        """
        with self._lock:
            stamp_ns = self._history.newest_common_ns()
            if stamp_ns is None or self._hold_reason(now_ns) or not self._is_due(stamp_ns):
                return None
            observation = self._history.sample(stamp_ns)
            episode, index = self._episode, self._next_index
            seed = chunk_seed(self._seed, index)
        started = time.perf_counter()
        result = self._sample(observation, seed)
        chunk = ActionChunk(stamp_ns, self._settings.dt_ns, result.actions, id=index)
        latency_s = time.perf_counter() - started
        with self._lock:
            if episode != self._episode:
                return None
            self._chunk, self._next_index = chunk, index + 1
            self._latency_ns = round(1e9 * latency_s)
            self._misses += 0 < self._settings.deadline_s < latency_s
            return Plan(chunk, result.stats, latency_s, self._misses)

    def _sample(self, observation: dict[str, NDArray[Any]], seed: int) -> Any:
        settings = self._settings
        return self._policy.sample(
            observation,
            sampler=settings.sampler,
            seed=seed,
            scheduler=settings.scheduler,
            steps=settings.steps,
        )

    def _begin_episode(self, seed: int) -> None:
        self._seed = seed
        self._episode += 1
        self._next_index = 0
        self._chunk = None
        self._history.clear()
        self._faults.clear()

    def _time_restarted(self, stamp_ns: int) -> bool:
        """Whether a simulation or a bag began again while a chunk of its last run is in force."""
        chunk = self._chunk
        return chunk is not None and stamp_ns < chunk.stamp_ns - self._settings.max_age_ns

    def _hold_reason(self, now_ns: int) -> str | None:
        if self._faults:
            return "; ".join(f"{name}: {reason}" for name, reason in sorted(self._faults.items()))
        newest = self._history.newest_common_ns()
        if newest is None:
            return f"no observation yet of {', '.join(self._history.missing())}"
        if not self._settings.lockstep and now_ns - newest > self._settings.max_age_ns:
            age, limit = (now_ns - newest) / 1e9, self._settings.max_age_ns / 1e9
            return f"the newest observation is {age:.3f} s old, the limit is {limit:.3f} s"
        return None

    def _is_due(self, stamp_ns: int) -> bool:
        """Plan early enough that the new chunk arrives before the one in force has run out."""
        if self._chunk is None:
            return True
        dt_ns = self._settings.dt_ns
        longest_lead = (len(self._chunk.actions) - 1) * dt_ns
        lead = 0 if self._settings.lockstep else min(self._latency_ns + dt_ns, longest_lead)
        return stamp_ns >= self._chunk.end_ns - lead
