"""Rerun of recorded chunks: solved one after the other, each from what the recorded one had."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from para_policy.errors import ParaPolicyError
from para_policy.execution.chunk import ActionChunk
from para_policy.planning.chunks import ChunkRequest, PreviousChunk
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.solver import Solver
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.ros.bags.observations import Observation
from para_policy.ros.bags.records import ChunkRecord
from para_policy.samplers import Sampler

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy

ABSENT_PREVIOUS = "started from a chunk that is not in the bag"
OTHER_PREVIOUS = "started from a chunk that came out differently"


@dataclass(frozen=True)
class Solved:
    """The answer of a replay to one recorded chunk.

    Attributes:
        chunk: its actions; None where it could not be solved.
        rounds, latency_s: of this solve.
        reason: why it could not be solved, or did not start from what the recorded solve started
            from.
    """

    chunk: ActionChunk | None
    rounds: int = 0
    latency_s: float = float("nan")
    reason: str = ""


@dataclass
class Rerun:
    """Solves of one chunk after the other, from the one before where the recorded solve did so.

    Args:
        other: a sampler instead of the recorded one.
    """

    policy: DiffusionPolicy
    other: SamplerSpec | None = None
    _solver: Solver = field(init=False)
    _previous: PreviousChunk | None = None
    _doubt: str = ABSENT_PREVIOUS
    _index: int = -1
    _samplers: dict[tuple[str | None, int | None], Sampler] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._solver = Solver(self.policy)

    def solve(
        self, record: ChunkRecord, settings: PlannerSettings, observation: Observation
    ) -> Solved:
        """The chunk for an observation; never raises what a policy may refuse."""
        previous, doubt = self._previous_of(record, settings)
        started_s = time.perf_counter()
        try:
            request = ChunkRequest(
                settings=self._settings(settings, record),
                observation=observation,
                stamp_ns=record.stamp_ns,
                index=record.index,
                seed=record.seed,
                started_s=started_s,
                previous=previous,
                committed=record.committed,
            )
            (solution,) = self._solver.solve([request])
        except ParaPolicyError as error:
            self.skip()
            return Solved(None, reason=f"the policy refuses: {error}")
        latency_s = time.perf_counter() - started_s
        self._previous, self._index = solution.as_previous, record.index
        self._doubt = _doubt_about(solution.chunk, record, doubt)
        return Solved(solution.chunk, int(solution.stats.rounds), latency_s, doubt)

    def skip(self) -> None:
        """A chunk that cannot be solved: the next one has nothing to start from."""
        self._previous, self._doubt = None, ABSENT_PREVIOUS

    def _previous_of(
        self, record: ChunkRecord, settings: PlannerSettings
    ) -> tuple[PreviousChunk | None, str]:
        """The chunk to start from, and why it may not be the one that the recorded solve had."""
        if record.executed is None:
            return None, ""
        # Not always the one numbered before it: chunks that were withheld have numbers, too.
        previous = self._previous
        if (
            previous is None
            or self._index >= record.index
            or previous.executed(record.stamp_ns, settings.dt_ns) != record.executed
        ):
            return None, ABSENT_PREVIOUS
        return previous, self._doubt

    def _settings(self, settings: PlannerSettings, record: ChunkRecord) -> PlannerSettings:
        """Without a deadline, as time is not the same here, but with as many rounds."""
        sampler = settings.sampler
        if self.other is not None:
            key = (settings.scheduler, settings.steps)
            if key not in self._samplers:
                self._samplers[key] = self.other.make(self.policy, *key)
            sampler = self._samplers[key]
        elif not record.converged:
            sampler = sampler.limited(record.rounds)
        return dataclasses.replace(settings, sampler=sampler, deadline_s=0.0)


def _doubt_about(chunk: ActionChunk, record: ChunkRecord, doubt: str) -> str:
    """Reason why the next chunk would not start from what the recorded one started from.

    A doubt stays until a cold start: equal actions say nothing of the rest of the prediction, which
    is not published, and from which the next solve starts, too.
    """
    if doubt or record.chunk is None or np.array_equal(chunk.actions, record.chunk.actions):
        return doubt
    return OTHER_PREVIOUS
