"""Plan of a call, its process and sampler: what was asked for, on what the policy has now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from para_policy import samplers
from para_policy.arguments import check_kind
from para_policy.calibration import Calibration
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.device import PLAIN_ENGINE
from para_policy.policies.solvers import AUTO, STAND_IN, Solvers
from para_policy.samplers import Sampler, as_sampler
from para_policy.samplers.deadline import Deadline

MEASURED = ("chord", "collocation")
"""Samplers that a calibration is made for, of what the policy sees."""


@dataclass(frozen=True)
class Settings:
    """What the user asked for; see `accelerate`."""

    sampler: str | Sampler = "x0"
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    scheduler: str | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)
    deadline_s: float | None = None
    warm_start: bool = False

    def __post_init__(self) -> None:
        check_kind("warm_start", self.warm_start, bool)
        if self.engine.backend == PLAIN_ENGINE and self.engine.precision != "float32":
            raise InputError(
                f"precision is {self.engine.precision}, and engine 'eager' leaves the network as it "
                "is: choose another engine, or use autocast or policy.bfloat16() yourself"
            )
        if self.deadline_s is not None:
            Deadline.after(self.deadline_s)
        if not isinstance(self.sampler, str):
            if self.options:
                raise InputError(
                    f"options {sorted(self.options)} are for a sampler by name; set them in yours"
                )
            if not callable(self.sampler):
                raise InputError(
                    f"sampler is {self.sampler!r}; expected a sampler, or one of "
                    f"{', '.join((*samplers.names(), AUTO))}"
                )
        else:
            taken = samplers.options(STAND_IN if self.sampler == AUTO else self.sampler)
            unknown = sorted(set(self.options) - set(taken))
            if unknown:
                raise InputError(
                    f"sampler {self.sampler!r} has no option {unknown}; "
                    f"it takes {list(taken) or 'none'}"
                )

    @property
    def needs_calibration(self) -> bool:
        return self.sampler in MEASURED and "matrices" not in self.options


@dataclass(frozen=True, eq=False)
class Plan:
    """The process of a call.

    Attributes:
        source: what of the policy it was made from, see `Convention.source`.
        schedule: the policy's own noise schedule, which calibrations are bound to.
        kind, process, eta: what is sampled with.
    """

    source: tuple[Any, ...]
    schedule: Mapping[str, Any]
    kind: str
    process: Process
    eta: float

    @property
    def key(self) -> tuple[str, int]:
        """As in `Calibration`."""
        return self.kind, self.process.num_steps


@dataclass(frozen=True, eq=False)
class Measured:
    """A calibration, and what it belongs to.

    Attributes:
        schedule: noise schedule.
        weights_sha256: of the policy's weights.
        versions: of the same, see `versions_of`.
    """

    calibration: Calibration
    schedule: Mapping[str, Any]
    weights_sha256: str
    versions: tuple[Any, ...]

    def fits(self, plan: Plan) -> bool:
        held = self.calibration
        key = (held.scheduler, held.steps)
        return key == plan.key and self.schedule == plan.schedule and held.fits(plan.process)


def versions_of(module: nn.Module) -> tuple[Any, ...]:
    """Places of the parameters of a module and counts of the changes there: equal as long as the
    parameters are, unless they are changed through `.data`. Equal parameters may have others."""
    # `parameters` puts names together, which takes milliseconds. Buffers are left out: a module may
    # write into its own in every call.
    return tuple(
        (one.data_ptr(), 0 if one.is_inference() else one._version)
        for part in module.modules()
        for one in part._parameters.values()
        if one is not None
    )


def choose(
    settings: Settings, plan: Plan, measured: Measured | None
) -> tuple[str | Sampler, dict[str, Any]]:
    """The sampler that was asked for, or `x0` where it is not calibrated, and its options.

    Raises:
        InputError: for options out of range, a deadline that the sampler cannot keep, and for one of
            `MEASURED` if the policy now samples otherwise than it was calibrated for.
    """
    name, options = settings.sampler, dict(settings.options)
    if not isinstance(name, str):
        return as_sampler(name), {}
    held = None if measured is None or not measured.fits(plan) else measured.calibration
    if settings.needs_calibration and measured is not None and held is None:
        raise InputError(
            f"{name} is calibrated for {measured.calibration.scheduler} with "
            f"{measured.calibration.steps} steps, but the policy now samples with {plan.kind} and "
            f"{plan.process.num_steps} steps: set them back, or call accelerate again"
        )
    if held is None and (settings.needs_calibration or name == AUTO):
        # The same answer in more rounds.
        shared = samplers.options(STAND_IN)
        name, options = STAND_IN, {k: v for k, v in options.items() if k in shared}
    if name != AUTO:
        made = samplers.get(name, **options) if held is None else held.sampler(name, options)
        if settings.deadline_s is not None and not made.stops_early:
            raise InputError(
                f"deadline_s is {settings.deadline_s}, and {name} has no answer before its last "
                "step: use another sampler"
            )
    return name, options


def make_sampler(
    settings: Settings, choice: tuple[str | Sampler, dict[str, Any]], solvers: Solvers
) -> Sampler:
    """The sampler of a choice, with what calibration has found; see `choose`."""
    name, options = choice
    if not isinstance(name, str):
        return solvers.solver(name)
    return solvers.sampler(name, deadline_s=settings.deadline_s, **options)
