"""Chunks on their way: wanted by a planner, solved by the policy, planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk
from para_policy.planning.history import observation_digest
from para_policy.planning.settings import PlannerSettings

_TOLERANCE = 0.25
"""Part of a step by which stamps may differ from whole steps: sensors do not tick exactly."""


@dataclass(frozen=True)
class PreviousChunk:
    """The chunk before, as far as the next solve can start from it.

    Attributes:
        result: of the policy for the chunk before.
        stamp_ns, dt_ns, actions: of that chunk: its time, its step, and how many it has.
    """

    result: Any
    stamp_ns: int
    dt_ns: int
    actions: int

    def executed(self, stamp_ns: int, dt_ns: int) -> int | None:
        """Whole steps of `dt_ns` from the chunk to `stamp_ns`.

        Returns:
            None where nothing can start from it: the time between steps has changed, the time
            between the chunks is not a number of steps, or none of its actions reaches that far.
        """
        steps = round((stamp_ns - self.stamp_ns) / dt_ns)
        reached = 0 <= steps < len(self.result.sample)
        return steps if dt_ns == self.dt_ns and reached and self._is_step(stamp_ns) else None

    def last_step_ns(self, stamp_ns: int) -> int:
        """The time of its last step that `stamp_ns` has reached; that itself where it is near a step."""
        if self._is_step(stamp_ns):
            return stamp_ns
        return stamp_ns - (stamp_ns - self.stamp_ns) % self.dt_ns

    def _is_step(self, stamp_ns: int) -> bool:
        elapsed_ns = stamp_ns - self.stamp_ns
        off_ns = abs(elapsed_ns - round(elapsed_ns / self.dt_ns) * self.dt_ns)
        return off_ns <= _TOLERANCE * self.dt_ns

    def left(self, executed: int) -> int:
        """Actions of it that are still to be executed after so many steps."""
        return max(self.actions - executed, 0)


@dataclass(frozen=True)
class ChunkRequest:
    """A chunk that is wanted.

    Attributes:
        settings: under which it is made, whatever the planner's are by then.
        observation: {name: (To, *shape)}.
        stamp_ns: time of its newest observations.
        index, seed: of the chunk.
        started_s: of `time.perf_counter`, when planning began; the deadline counts from then.
        started_ns: the same on the node's clock.
        previous: the chunk before; None: there is none.
        committed: actions, from `stamp_ns` on, that will have been executed when the chunk is ready.
        episode: of the planner, to which the chunk belongs.
        spacing_ns: time between observations of an input, see `ObservationHistory.spacing_ns`.
    """

    settings: PlannerSettings
    observation: dict[str, NDArray[Any]]
    stamp_ns: int
    index: int
    seed: int
    started_s: float
    previous: PreviousChunk | None
    started_ns: int = 0
    committed: int = 0
    episode: int = 0
    spacing_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ChunkSolution:
    """A chunk, what the policy says of it, and what it took over; see `PlannedChunk`."""

    chunk: ActionChunk
    stats: Any
    as_previous: PreviousChunk
    executed: int | None
    committed: int | None
    batch: int


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk that is in force from now on, and what it took.

    Attributes:
        stats: of the policy, see `SampleStats`.
        settings: under which it was made.
        started_ns: when its observations were looked at, on the node's clock.
        latency_s: from the look at the observations to the finished chunk.
        deadline_misses: late chunks so far.
        overruns: late chunks in a row, this one included.
        executed: steps by which the chunk before it was moved to start from it; None: cold start.
        committed: actions taken over from the chunk before; None: none, nor the past.
        batch: chunks that were solved in the same call.
        seed: of its noise.
        seen: {name: (To, *shape)}, what the policy saw.
        withheld: not to be published: too many chunks in a row were late, and this one is, too, or
            it is not accurate enough.
        spacing_ns: time between observations of an input, see `ObservationHistory.spacing_ns`.
        unconverged: chunks in a row that have not converged, this one included.
        episode: of the planner, to which it belongs.
    """

    chunk: ActionChunk
    stats: Any
    settings: PlannerSettings
    started_ns: int
    latency_s: float
    deadline_misses: int
    overruns: int
    executed: int | None
    committed: int | None
    batch: int
    seed: int
    seen: Mapping[str, NDArray[Any]]
    withheld: bool
    spacing_ns: Mapping[str, int] = field(default_factory=dict)
    unconverged: int = 0
    episode: int = 0

    @property
    def spacing_warning(self) -> str | None:
        """What is to be said of observations that are not a step apart; None where all are."""
        step_ms, tolerance = self.settings.dt_ns / 1e6, self.settings.spacing_tolerance
        uneven = [
            f"observations of {name} are {spacing / 1e6:.1f} ms apart"
            for name, spacing in self.spacing_ns.items()
            if abs(spacing / 1e6 - step_ms) > tolerance * step_ms
        ]
        if not uneven:
            return None
        return (
            f"{', '.join(uneven)}, expected {step_ms:g} within {tolerance * step_ms:g}: the "
            "publisher is too slow, or messages are lost"
        )

    @property
    def scale_warning(self) -> str | None:
        """What is to be said of observations that are far from all demonstrations; None where none is."""
        found = [
            f"{name}: {far}"
            for name, trained in self.settings.trained.items()
            if (far := trained.far(self.seen[name][-1]))
        ]
        return "; ".join(found) or None

    @property
    def observation(self) -> str:
        """Digest of what the policy saw: milliseconds for images, so not before the chunk is out."""
        return observation_digest(self.seen)

    @property
    def due_ns(self) -> int | None:
        """Time at which it must be out, on the node's clock; None without a deadline."""
        deadline_s = self.settings.deadline_s
        return self.started_ns + round(1e9 * deadline_s) if deadline_s else None
