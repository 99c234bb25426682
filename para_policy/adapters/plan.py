"""Plan of a call, its process and sampler: what was asked for, on what the policy has now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from para_policy import samplers
from para_policy.calibration import Calibration
from para_policy.diffusion.process import Process
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
