"""Conditions of the latency experiment, and its arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from para_policy.cli.inputs import OfCheckpoint
from para_policy.errors import InputError
from para_policy.extras import require_ros
from para_policy.files import check_distinct, check_output_file
from para_policy.ros.domain import check_domain
from sim.evaluation.statistics import check_margin
from sim.pusht.env import CONTROL_DT, MAX_STEPS
from sim.pusht.task import PUSHT

MODES: Mapping[str, Mapping[str, object]] = {
    "uncompensated": {"stamp_mode": "zero"},
    "compensated": {},
    "chunking_hard": {"real_time_chunking": "hard"},
    "chunking_soft": {"real_time_chunking": "soft", "coordinates": ["number 0-1"]},
}
"""Modes, and what each changes of the parameters of policy_node."""
ON_TIME_S = CONTROL_DT / 2
"""`latency_offset_s` where actions keep their times.

The board takes, at the end of each period, the command that is in force. An action that is due in that
period is in force at its end only if nothing of the next one comes early: half a period of margin.
"""
OFFSET_OF = {"latency_offset_of": ["chunk_executor", "policy_node"]}
"""Part of what a run is; without it only the executor had the offset."""


class Playable(Protocol):
    """A condition under which episodes are played in real time."""

    @property
    def policy(self) -> Mapping[str, object]:
        """What it changes of the parameters of policy_node."""

    @property
    def simulator(self) -> Mapping[str, object]:
        """What it changes of the parameters of pusht_sim."""

    @property
    def latency_offset_s(self) -> float:
        """Parameter of policy_node and chunk_executor."""


@dataclass(frozen=True)
class Condition:
    """One of MODES, with latency added to every chunk."""

    mode: str
    added_latency_ms: float

    @property
    def policy(self) -> Mapping[str, object]:
        return {"added_latency_ms": float(self.added_latency_ms), **MODES[self.mode]}

    @property
    def simulator(self) -> Mapping[str, object]:
        return {}

    @property
    def latency_offset_s(self) -> float:
        # A chunk without a stamp begins whenever it arrives, on no grid.
        return 0.0 if self.mode == "uncompensated" else ON_TIME_S


@dataclass(frozen=True, kw_only=True)
class RunArguments(OfCheckpoint):
    """Arguments of any experiment that plays PushT over ROS in real time."""

    json: Path
    """Where the numbers go; the table (.md) is written beside it."""
    sampler: str = "chord"
    """Of all runs."""
    scheduler: str | None = None
    """Noise scheduler, as for `para-policy bench` (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""
    episodes: int = 10
    """Episodes per condition."""
    seed: int = 100000
    """Start state of the first episode; episode i has seed + i."""
    max_steps: int = MAX_STEPS
    """Actions in an episode that does not succeed; ten take a second."""
    jobs: int = 1
    """Pipelines that run at the same time, three processes each; they disturb each other."""
    block: int = 4
    """Episodes of a condition until the next condition has its turn."""
    domain_id: int = 50
    """ROS domain of the first pipeline; the others have the next ones."""
    max_load: float = math.inf
    """Wait with the next episodes, ten minutes at most, while the load average is above this."""
    margin: float = 0.05
    """Equivalence margin of the mean max reward."""

    default: ClassVar[str | None] = "checkpoints/pusht_state"
    beside: ClassVar[tuple[str, ...]] = (".md",)
    """Suffixes of what is written beside the JSON."""

    def check(self) -> None:
        """Raise InputError, or MissingPackageError, for what would end the run in its course."""
        counts = {name: getattr(self, name) for name in ("episodes", "jobs", "block", "max_steps")}
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"--{name.replace('_', '-')} is {count}; expected 1 or more")
        check_margin(self.margin)
        for domain_id in (self.domain_id, self.domain_id + self.jobs - 1):
            check_domain(domain_id)
        require_ros()
        PUSHT.require()
        for seed in (self.seed, self.seed + self.episodes - 1):
            PUSHT.start_state(seed)
        outputs = [self.json, *(self.json.with_suffix(suffix) for suffix in self.beside)]
        for output in outputs:
            check_output_file(output)
        check_distinct(*outputs)


@dataclass(frozen=True, kw_only=True)
class Arguments(RunArguments):
    """Play PushT over ROS in real time with added latency, in four modes; compare with no ROS at all.

    uncompensated: a chunk starts when it arrives. compensated: its actions keep their times and
    late ones are dropped. chunking_hard, chunking_soft: that, and real-time chunking. All
    conditions play the same start states and are compared with the in-process evaluation of the
    same sampler. The checkpoint is by default checkpoints/pusht_state. An interrupted run goes on
    where it stopped, also with more episodes.
    """

    added_latency_ms: tuple[float, ...] = (0.0, 50.0, 100.0, 200.0)
    """Added to what each chunk takes."""
    modes: tuple[str, ...] = tuple(MODES)
    """Of the four above."""

    beside: ClassVar[tuple[str, ...]] = (".md", ".png")
