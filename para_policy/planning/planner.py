"""When to plan for a robot, from what, and with which noise. Thread-safe, and free of ROS."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk
from para_policy.planning.history import ObservationHistory
from para_policy.planning.overruns import Overruns
from para_policy.planning.plan import Plan, PlannerSettings
from para_policy.planning.seeding import chunk_seed
from para_policy.planning.solver import Solution, Task
from para_policy.planning.stuck import FrozenWatch
from para_policy.planning.warm_start import Start

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig

_LATENCIES = 10
"""The slowest of so many last chunks is how long the next one is expected to take."""


class Planner:
    """What one robot has seen and does: says which chunk is wanted, and places it on the clock.

    All methods return at once and may be called from any thread. `Fleet` makes the chunks.
    """

    def __init__(self, config: PolicyConfig, settings: PlannerSettings, seed: int) -> None:
        self._settings = settings
        self._shapes = {name: tuple(shape) for name, shape in config.inputs.items()}
        self._history = ObservationHistory(
            self._shapes,
            config.n_obs_steps,
            settings.dt_ns,
            max_gap_ns=settings.max_age_ns,
            max_gaps_ns=settings.max_ages_ns,
            linear=settings.linear,
        )
        self._watches = {n: FrozenWatch(most_s) for n, most_s in settings.max_unchanged_s.items()}
        self._lock = threading.Lock()
        self._faults: dict[str, str] = {}
        self._latencies_ns: deque[int] = deque([0], maxlen=_LATENCIES)
        self._overruns = Overruns()
        self._start: Start | None = None
        self._episode = 0
        self._next_index = 0
        self._retired: ActionChunk | None = None
        self._chunk: ActionChunk | None = None
        self._begin_episode(seed)

    def change(self, settings: PlannerSettings, latency_s: float | None) -> None:
        """Use other settings from the next chunk on; one that is being planned keeps its own.

        Late chunks in a row are forgiven, as what was too slow may now be fast enough.

        Args:
            latency_s: what a chunk is expected to take from now on; None: as before.
        """
        with self._lock:
            self._settings = settings
            self._history.set_dt(settings.dt_ns)
            self._overruns.forgive()
            if latency_s is not None:
                self._latencies_ns.clear()
                self._latencies_ns.append(round(1e9 * latency_s))

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
            if self._time_restarted(name, stamp_ns):
                self._begin_episode(self._seed)
            fits = values.size == int(np.prod(shape))
            self._history.append(name, stamp_ns, values.reshape(shape) if fits else values)
            if name in self._watches:
                self._watches[name].seen(stamp_ns, values)
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
            self._overruns.forgive()
            self._begin_episode(seed)

    def hold_reason(self, now_ns: int) -> str | None:
        """Why nothing can be planned now; None when all is well."""
        with self._lock:
            return self._hold_reason(now_ns)

    def overrun_reason(self) -> str | None:
        """Why chunks are withheld; None while they are not."""
        with self._lock:
            if not self._withholding():
                return None
            settings = self._settings
            return (
                f"{settings.max_overruns} chunks in a row took longer than deadline_ms = "
                f"{1e3 * settings.deadline_s:g}; one in time or ~/reset ends this"
            )

    def observation_ages_s(self, now_ns: int) -> dict[str, float]:
        """Age of the newest observation of each input that has one."""
        with self._lock:
            newest = self._history.newest_ns()
        return {name: (now_ns - stamp_ns) / 1e9 for name, stamp_ns in newest.items()}

    def task(self, now_ns: int, started_s: float) -> Task | None:
        """The chunk that is wanted, for the newest time that all inputs have reached.

        While chunks are withheld one is tried in every step; one in time is not withheld.

        Args:
            started_s: of `time.perf_counter`: now.
        Returns:
            None when there is a reason to hold, or when the chunk in force still lasts.
        """
        with self._lock:
            stamp_ns = self._history.newest_common_ns()
            if stamp_ns is None or self._hold_reason(now_ns) or not self._is_due(stamp_ns, now_ns):
                return None
            index = self._next_index
            ready_ns = now_ns + max(self._latencies_ns)
            return Task(
                observation=self._history.sample(stamp_ns),
                stamp_ns=stamp_ns,
                index=index,
                seed=chunk_seed(self._seed, index),
                started_s=started_s,
                previous=self._start,
                started_ns=now_ns,
                # The action that is being executed when the chunk comes is decided, too.
                decided=math.floor((ready_ns - stamp_ns) / self._settings.dt_ns) + 1,
                episode=self._episode,
            )

    def finish(
        self, settings: PlannerSettings, task: Task, solution: Solution, latency_s: float
    ) -> Plan | None:
        """Put a chunk in force that was made for `task` under `settings`.

        Returns:
            None when `reset` was called meanwhile.
        """
        with self._lock:
            if task.episode != self._episode:
                return None
            self._chunk, self._start = solution.chunk, solution.as_start
            self._next_index = task.index + 1
            self._latencies_ns.append(round(1e9 * latency_s))
            if settings is self._settings:  # a chunk of old settings says nothing about these
                self._overruns.count(latency_s, settings.deadline_s)
            return Plan(
                chunk=solution.chunk,
                stats=solution.stats,
                settings=settings,
                started_ns=task.started_ns,
                latency_s=latency_s,
                deadline_misses=self._overruns.total,
                overruns=self._overruns.in_a_row,
                executed=solution.executed,
                frozen=solution.frozen,
                batch=solution.batch,
                seed=task.seed,
                seen=task.observation,
                withheld=self._withholding(),
            )

    def _withholding(self) -> bool:
        settings = self._settings
        return not settings.lockstep and self._overruns.too_many(settings.max_overruns)

    def _begin_episode(self, seed: int) -> None:
        self._seed = seed
        self._episode += 1
        self._next_index = 0
        self._chunk = self._start = None
        self._history.clear()
        self._faults.clear()
        for watch in self._watches.values():
            watch.clear()

    def _time_restarted(self, name: str, stamp_ns: int) -> bool:
        """Whether a simulation or a bag began again while a chunk of its last run is in force."""
        chunk = self._chunk
        return chunk is not None and stamp_ns < chunk.stamp_ns - self._settings.max_age_of(name)

    def _hold_reason(self, now_ns: int) -> str | None:
        if self._faults:
            return "; ".join(f"{name}: {reason}" for name, reason in sorted(self._faults.items()))
        if missing := self._history.missing():
            return f"no observation yet of {', '.join(missing)}"
        for name, watch in self._watches.items():
            if still_s := watch.frozen_for_s():
                return (
                    f"{name} has not changed for {still_s:.3f} s, the limit is "
                    f"{self._settings.max_unchanged_s[name]:g} s: the sensor may be frozen"
                )
        if self._settings.lockstep:
            return None
        for name, stamp_ns in self._history.newest_ns().items():
            limit_ns = self._settings.max_age_of(name)
            age, limit = (now_ns - stamp_ns) / 1e9, limit_ns / 1e9
            if now_ns - stamp_ns > limit_ns:
                return f"the newest observation of {name} is {age:.3f} s old, the limit is {limit:.3f} s"
            if stamp_ns - now_ns > limit_ns:
                return (
                    f"the newest observation of {name} is stamped {-age:.3f} s ahead of the clock"
                )
        return None

    def _is_due(self, stamp_ns: int, now_ns: int) -> bool:
        """Plan when a chunk that is begun a step later could come after the one in force has run out."""
        chunk, settings = self._chunk, self._settings
        if chunk is None:
            return True
        elapsed_ns = stamp_ns - chunk.stamp_ns
        if settings.lockstep:
            return stamp_ns >= chunk.end_ns
        if self._withholding():
            return elapsed_ns >= chunk.dt_ns
        if settings.replan_steps and elapsed_ns >= settings.replan_steps * chunk.dt_ns:
            return True
        ready_ns = now_ns + max(self._latencies_ns)
        return elapsed_ns >= chunk.dt_ns and ready_ns + chunk.dt_ns >= chunk.end_ns
