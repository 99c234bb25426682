"""Planner of one robot: when to plan, from what, and with which noise. Thread-safe."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk
from para_policy.planning.chunks import (
    ChunkRequest,
    ChunkSolution,
    PlannedChunk,
    PreviousChunk,
)
from para_policy.planning.inputs import RobotInputs
from para_policy.planning.seeding import chunk_seed
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.trust import Accuracy, Overruns

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig

_LATENCIES = 10
"""The slowest of so many last chunks is how long the next one is expected to take."""


_EARLY = 0.1
"""Part of a step by which a chunk may be planned before its step: stamps jitter."""


class Planner:
    """One robot, as far as planning goes: says which chunk it wants, and places it on the clock.

    All methods return at once and may be called from any thread. `Fleet` makes the chunks.
    """

    def __init__(self, config: PolicyConfig, settings: PlannerSettings, seed: int) -> None:
        self._settings = settings
        self._inputs = RobotInputs(config, settings)
        self._lock = threading.Lock()
        self._latencies_ns: deque[int] = deque([0], maxlen=_LATENCIES)
        self._overruns, self._accuracy = Overruns(), Accuracy()
        self._previous: PreviousChunk | None = None
        self._episode = 0
        self._next_index = 0
        self._retired: ActionChunk | None = None
        self._chunk: ActionChunk | None = None
        self._withheld = False
        self._begin_episode(seed)

    @property
    def episode(self) -> int:
        """Number of the present one: it changes with `reset`, and when time starts again."""
        return self._episode

    def change(self, settings: PlannerSettings, latency_s: float | None) -> None:
        """Use other settings from the next chunk on; one that is being planned keeps its own.

        Late and inaccurate chunks are forgiven, as what was too slow may now be fast enough.

        Args:
            latency_s: what a chunk is expected to take from now on; None: as before.
        """
        with self._lock:
            self._settings = settings
            self._inputs.history.set_dt(settings.dt_ns)
            self._forgive()
            if latency_s is not None:
                self._latencies_ns.clear()
                self._latencies_ns.append(round(1e9 * latency_s))

    def observe(
        self, name: str, stamp_ns: int, values: NDArray[Any], received_ns: int | None = None
    ) -> None:
        """Add one observation of input `name`; flat values take the input's shape.

        Args:
            values: pixels are uint8 and stay so.
            received_ns: time of its arrival; None: not known. By it a sample that is too old, though
                newer ones have come, is told from time that begins again, and left out.
        Raises:
            ParaPolicyError: when shape or values are wrong. The input then counts as faulty, and
                nothing is planned, until its next good observation.
        """
        with self._lock:
            if self._retired is not None and self._retired.covers(stamp_ns):
                return  # a straggler of the episode that `reset` has ended
            history = self._inputs.history
            if received_ns is not None and history.is_straggler(name, stamp_ns, received_ns):
                return
            if self._time_restarted(name, stamp_ns):
                self._begin_episode(self._seed)
            self._inputs.observe(name, stamp_ns, values, received_ns)

    def reject(self, name: str, reason: str) -> None:
        """Input `name` delivers something unusable: plan nothing until it delivers again."""
        with self._lock:
            self._inputs.reject(name, reason)

    def pass_over(self, name: str, reason: str) -> None:
        """A message for input `name` had nothing for it: `reason` is told while no other one has."""
        with self._lock:
            self._inputs.pass_over(name, reason)

    def reset(self, seed: int) -> None:
        """Begin a new episode: no observations, chunk 0 next, noise from `seed`.

        In lockstep a late message of the old episode must not become the first of the new one.
        Such messages carry times that the last chunk covers, as the simulator has not gone
        beyond it, and are ignored from now on.
        """
        with self._lock:
            self._retired = self._chunk if self._settings.lockstep else None
            self._forgive()
            self._begin_episode(seed)

    def hold_reason(self, now_ns: int) -> str | None:
        """Reason why nothing can be planned now; None when all is well."""
        with self._lock:
            return self._inputs.fault(now_ns, self._settings)

    def withheld_reason(self) -> str | None:
        """Reason why chunks are withheld; None while they are not."""
        with self._lock:
            return self._withheld_reason()

    def warnings(self) -> list[str]:
        """What somebody should mend although chunks are planned."""
        with self._lock:
            unconverged = self._accuracy.warning(self._settings)
            ahead = self._inputs.warnings(self._settings)
            return [*ahead, unconverged] if unconverged else ahead

    def observation_ages_s(self, now_ns: int) -> dict[str, float]:
        """Age of the newest observation of each input that has one."""
        with self._lock:
            newest = self._inputs.history.newest_ns()
        return {name: (now_ns - stamp_ns) / 1e9 for name, stamp_ns in newest.items()}

    def request(self, now_ns: int, started_s: float) -> ChunkRequest | None:
        """The chunk that is wanted, for the newest time that all inputs have reached.

        With real-time chunking that is a step of the chunk before, whose actions are to be taken over:
        a camera does not tick with them. After a chunk that was withheld one is tried in every step.

        Args:
            started_s: of `time.perf_counter`: now.
        Returns:
            None when there is a reason to hold, or when the chunk in force still lasts.
        """
        with self._lock:
            stamp_ns = self._inputs.history.newest_common_ns()
            if stamp_ns is None or self._inputs.fault(now_ns, self._settings):
                return None
            if not self._is_due(stamp_ns, now_ns):
                return None
            stamp_ns = self._on_steps(stamp_ns)
            index = self._next_index
            ahead_ns = self._played_ns(now_ns) - stamp_ns
            return ChunkRequest(
                settings=self._settings,
                observation=self._inputs.history.sample(stamp_ns),
                stamp_ns=stamp_ns,
                index=index,
                seed=chunk_seed(self._seed, index),
                started_s=started_s,
                previous=self._previous,
                started_ns=now_ns,
                # The action that is being executed when the chunk comes is committed, too.
                committed=math.floor(ahead_ns / self._settings.dt_ns) + 1,
                episode=self._episode,
                spacing_ns=self._inputs.history.spacing_ns(stamp_ns),
            )

    def finish(
        self, request: ChunkRequest, solution: ChunkSolution, latency_s: float
    ) -> PlannedChunk | None:
        """Put a chunk in force that was made for `request`.

        Returns:
            None when `reset` was called meanwhile.
        """
        settings = request.settings
        with self._lock:
            if request.episode != self._episode:
                return None
            self._chunk = solution.chunk
            self._accuracy.count(solution.stats)
            self._next_index = request.index + 1
            self._latencies_ns.append(round(1e9 * latency_s))
            if settings is self._settings:  # a chunk of old settings says nothing about these
                self._overruns.count(latency_s, settings.deadline_s)
            self._withheld = withheld = self._withheld_reason() is not None
            if not withheld:
                self._previous = solution.as_previous
            elif settings.real_time_chunking == "none":  # else the robot goes on with the last one
                # Nothing may start from a chunk that is too wrong; a late one is as good a start.
                too_wrong = self._accuracy.reason(settings)
                self._previous = None if too_wrong else solution.as_previous
            return PlannedChunk(
                chunk=solution.chunk,
                stats=solution.stats,
                settings=settings,
                started_ns=request.started_ns,
                latency_s=latency_s,
                deadline_misses=self._overruns.total,
                overruns=self._overruns.in_a_row,
                executed=solution.executed,
                committed=solution.committed,
                batch=solution.batch,
                seed=request.seed,
                seen=request.observation,
                withheld=withheld,
                spacing_ns=request.spacing_ns,
                unconverged=self._accuracy.unconverged,
                episode=request.episode,
            )

    def _withheld_reason(self) -> str | None:
        settings = self._settings
        if settings.lockstep:
            return None
        return self._overruns.reason(settings) or self._accuracy.reason(settings)

    def _forgive(self) -> None:
        self._overruns.forgive()
        self._accuracy.forgive()

    def _begin_episode(self, seed: int) -> None:
        self._seed = seed
        self._episode += 1
        self._next_index = 0
        self._chunk = self._previous = None
        self._withheld = False
        self._inputs.clear()

    def _time_restarted(self, name: str, stamp_ns: int) -> bool:
        """True where a simulation or a bag began again while a chunk of its last run is in force."""
        chunk = self._chunk
        return chunk is not None and stamp_ns < chunk.stamp_ns - self._settings.max_age_of(name)

    def _is_due(self, stamp_ns: int, now_ns: int) -> bool:
        """Plan when a chunk that is begun a step later could come after the one in force has run out."""
        chunk, settings = self._chunk, self._settings
        if chunk is None:
            return True
        if settings.lockstep:
            return stamp_ns >= chunk.end_ns
        elapsed_ns = stamp_ns - chunk.stamp_ns + round(_EARLY * chunk.dt_ns)
        if self._withheld:
            return elapsed_ns >= chunk.dt_ns
        if settings.replan_steps and elapsed_ns >= settings.replan_steps * chunk.dt_ns:
            return True
        left_ns = chunk.end_ns - self._played_ns(now_ns)
        return elapsed_ns >= chunk.dt_ns and left_ns <= chunk.dt_ns

    def _on_steps(self, stamp_ns: int) -> int:
        """The time for which a chunk is planned from observations that reach up to `stamp_ns`."""
        before, settings = self._previous, self._settings
        if before is None or settings.real_time_chunking == "none" or settings.lockstep:
            return stamp_ns
        step_ns = before.last_step_ns(stamp_ns)
        executed = before.executed(step_ns, settings.dt_ns)
        goes_on = executed is not None and before.left(executed) > 0
        return step_ns if goes_on else stamp_ns

    def _played_ns(self, now_ns: int) -> int:
        """Time of the actions, by their stamps, that are played when a chunk is ready that is begun now."""
        return now_ns + max(self._latencies_ns) - self._settings.offset_ns
