"""Settings of a planner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from para_policy.execution.coordinates import UNKNOWN, Coordinates
from para_policy.planning.trained import TrainedScale

if TYPE_CHECKING:
    from para_policy.samplers import Sampler


@dataclass(frozen=True)
class PlannerSettings:
    """Everything that decides how chunks are planned.

    Attributes:
        sampler: solver of the denoising chain.
        scheduler, steps: None keeps the checkpoint's.
        dt_ns: time between actions, and between the observations that the policy sees.
        max_age_ns: an older observation is stale: the robot holds.
        max_ages_ns: the same for single inputs, by name.
        max_unchanged_s: by input, for how long its values may stay the same to the bit; one that is
            not named may stand still for ever.
        linear: inputs that are interpolated between their samples.
        max_future_ns: stamps that were so far ahead of the clock on arrival are told of.
        spacing_tolerance: part of `dt_ns` by which the time between the observations that the
            policy sees may differ from it before that is told.
        parts: inputs that are put together from several streams: the width of each, by its name, in
            order. Ages, `linear` and `coordinates` are by the names of streams.
        coordinates: of the flat values of each stream, by name.
        trained: scale of the flat values of each input, by name; of one that is not named, and of
            images, nothing is told.
        action_coordinates: of the actions.
        sampler_name: what the user calls the sampler.
        anytime: true where the sampler can stop at a deadline.
        deadline_s: a chunk must be out so long after its observation was looked at; 0: whenever it is
            ready.
        max_overruns: so many late chunks in a row end publication; 0 never does.
        max_unconverged: so many chunks in a row that have not converged are told of; 0: never.
        max_residual: a chunk whose residual is larger, normalised action units, is not published;
            0: any is.
        max_error: nor one whose error bound is larger, or not known, physical units; 0: any is.
        n_action_steps: actions of a chunk; 0 for the checkpoint's number.
        warm_start: start each solve from the chunk before it.
        shift_noise: and use its noise again, moved likewise.
        real_time_chunking: the actions that will be executed while a chunk is planned are committed
            and the rest is sampled to fit: "hard", or "soft" to be pulled towards the chunk before,
            as far as it may be mixed number by number.
        offset_ns: action i is executed at stamp + i dt + offset.
        replan_steps: plan anew so many steps after a chunk; 0: when it is about to run out.
        message: all of it as JSON, as on the topic `~/settings`.
        added_latency_s: for experiments: a chunk is ready so much later.
        lockstep: simulated time that waits for each command. Then nothing is ever late, a chunk is
            replaced exactly when its last action has been played, and the same observations give
            the same chunks to the bit: late chunks are counted, but no solve is cut short, none
            starts from the one before it, and nothing is withheld.
    """

    sampler: Sampler
    scheduler: str | None
    steps: int | None
    dt_ns: int
    max_age_ns: int
    max_ages_ns: Mapping[str, int] = field(default_factory=dict)
    max_unchanged_s: Mapping[str, float] = field(default_factory=dict)
    linear: frozenset[str] = frozenset()
    max_future_ns: int = 5_000_000
    spacing_tolerance: float = 0.4
    coordinates: Mapping[str, Coordinates] = field(default_factory=dict)
    trained: Mapping[str, TrainedScale] = field(default_factory=dict)
    action_coordinates: Coordinates = UNKNOWN
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    sampler_name: str = ""
    anytime: bool = False
    deadline_s: float = 0.0
    max_overruns: int = 0
    max_unconverged: int = 0
    max_residual: float = 0.0
    max_error: float = 0.0
    n_action_steps: int = 0
    warm_start: bool = False
    shift_noise: bool = False
    real_time_chunking: Literal["none", "hard", "soft"] = "none"
    offset_ns: int = 0
    replan_steps: int = 0
    added_latency_s: float = 0.0
    message: str = ""
    lockstep: bool = False

    @cached_property
    def id(self) -> str:
        """Name of these settings in `~/chunk_info`; empty without a message."""
        return str(json.loads(self.message)["id"]) if self.message else ""

    def streams(self, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of what is observed: of the inputs, or of the parts of those that have some."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in inputs.items():
            parts = self.parts.get(name)
            shapes |= {n: (width,) for n, width in parts.items()} if parts else {name: tuple(shape)}
        return shapes

    def max_age_of(self, name: str) -> int:
        return self.max_ages_ns.get(name, self.max_age_ns)
