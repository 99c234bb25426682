"""Plan of a call, its process and sampler: what was asked for, on what the policy has now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from para_policy import samplers
from para_policy.calibration import Calibration
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import (
    SCHEDULERS,
    build_scheduler,
    kind_of,
    own_options,
    scheduler_kind,
)
from para_policy.errors import InputError
from para_policy.samplers import Sampler, as_sampler

MEASURED = ("chord", "collocation")
"""Samplers that a calibration is made for, of what the policy sees."""


@dataclass(frozen=True)
class Settings:
    """What the user asked for; see `accelerate`."""

    sampler: str | Sampler = "x0"
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sampler, str):
            if self.options:
                raise InputError(
                    f"options {sorted(self.options)} are for a sampler by name; set them in yours"
                )
            if not callable(self.sampler):
                raise InputError(
                    f"sampler is {self.sampler!r}; expected a sampler, or one of "
                    f"{', '.join(samplers.names())}"
                )
        else:
            unknown = sorted(set(self.options) - set(samplers.options(self.sampler)))
            if unknown:
                raise InputError(
                    f"sampler {self.sampler!r} has no option {unknown}; "
                    f"it takes {list(samplers.options(self.sampler)) or 'none'}"
                )

    @property
    def needs_calibration(self) -> bool:
        return self.sampler in MEASURED and "matrices" not in self.options


@dataclass(frozen=True, eq=False)
class Plan:
    """The process of a call.

    Attributes:
        source: the policy's own scheduler object and step count, which it was made from.
        schedule: the configuration of that scheduler, which calibrations are bound to.
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


def make_plan(owner: Any, settings: Settings, step_options: Mapping[str, Any]) -> Plan:
    """Read the policy's scheduler as it is now, so that changing it keeps working.

    Args:
        step_options: of `scheduler.step`; `eta` and `use_clipped_model_output`.

    Raises:
        InputError: for a scheduler or step count that cannot be represented.
    """
    schedule = schedule_of(owner.noise_scheduler)
    # Not the policy's own object, which holds the state of its last loop.
    scheduler = build_scheduler(schedule, settings.scheduler)
    steps = owner.num_inference_steps if settings.steps is None else settings.steps
    process = Process.from_scheduler(scheduler, steps, **step_options)
    kind = settings.scheduler or scheduler_kind(schedule)
    eta = step_options.get("eta", 0.0)
    return Plan(source(owner, step_options), schedule, kind, process, eta)


def source(owner: Any, step_options: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a plan depends on; a plan with an equal one can be used again."""
    return owner.noise_scheduler, owner.num_inference_steps, *sorted(step_options.items())


@dataclass(frozen=True, eq=False)
class Measured:
    """A calibration, and the noise schedule that it belongs to."""

    calibration: Calibration
    schedule: Mapping[str, Any]

    def fits(self, plan: Plan) -> bool:
        held = self.calibration
        key = (held.scheduler, held.steps)
        return key == plan.key and self.schedule == plan.schedule and held.fits(plan.process)


def make_sampler(
    settings: Settings, plan: Plan, measured: Measured | None, device: torch.device
) -> Sampler:
    """The sampler that was asked for, with what is known from calibration.

    Raises:
        InputError: for options out of range, and for one of `MEASURED` if the policy now samples otherwise
            than it was calibrated for.
    """
    if not isinstance(settings.sampler, str):
        return as_sampler(settings.sampler)
    if measured is not None and measured.fits(plan):
        made = measured.calibration.to(device).sampler(settings.sampler, settings.options)
        return replace(made, made_for=plan.process)
    if settings.needs_calibration and measured is not None:
        raise InputError(
            f"{settings.sampler} is calibrated for {measured.calibration.scheduler} with "
            f"{measured.calibration.steps} steps, but the policy now samples with {plan.kind} and "
            f"{plan.process.num_steps} steps: set them back, or call accelerate again"
        )
    if settings.needs_calibration:  # the same answer in a few rounds more
        shared = set(samplers.options("x0"))
        return samplers.get("x0", **{k: v for k, v in settings.options.items() if k in shared})
    return samplers.get(settings.sampler, **settings.options)


def schedule_of(scheduler: Any) -> dict[str, Any]:
    """The configuration of a diffusers scheduler as a checkpoint stores it.

    Raises:
        InputError: if it is no diffusers scheduler.
    """
    if not isinstance(getattr(scheduler, "config", None), Mapping):
        raise InputError(
            f"noise_scheduler is a {type(scheduler).__name__}; expected a diffusers scheduler"
        )
    given = own_options(scheduler)
    plain = json.loads(json.dumps(given, default=lambda value: np.asarray(value).tolist()))
    return {"_class_name": SCHEDULERS[kind_of(scheduler)].__name__, **plain}
