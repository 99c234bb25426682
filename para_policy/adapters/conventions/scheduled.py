"""Policies that sample with a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from para_policy.adapters.conventions.convention import Convention
from para_policy.adapters.plan import Plan, Settings
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedule_config import schedule_of
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind
from para_policy.errors import InputError


class Scheduled(Convention):
    """A convention with a noise schedule: by default the owner's `noise_scheduler` and
    `num_inference_steps`.

    Both are read at every call, so that changing them on the live policy keeps working, and so does
    changing the scheduler's configuration where it is (`register_to_config`).
    """

    def schedule(self) -> dict[str, Any]:
        """Configuration of the policy's scheduler, as a checkpoint stores it.

        Raises:
            InputError: if it cannot be represented.
        """
        return schedule_of(self.owner.noise_scheduler)

    @property
    def own_steps(self) -> Any:
        """Number of steps that the policy is set to."""
        return self.owner.num_inference_steps

    def plan(self, settings: Settings, loop_options: Mapping[str, Any]) -> Plan:
        """As `Convention.plan`; `loop_options` are those of `Process.from_scheduler`."""
        schedule = self.schedule()
        # Not the policy's own object, which holds the state of its last loop.
        scheduler = build_scheduler(schedule, settings.scheduler)
        self._check_as_configured(schedule)
        steps = self.own_steps if settings.steps is None else settings.steps
        process = Process.from_scheduler(scheduler, steps, **loop_options)
        kind = settings.scheduler or scheduler_kind(schedule)
        eta = loop_options.get("eta", 0.0)
        return Plan(self.source(loop_options), schedule, kind, process, eta)

    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        owner, scheduler = self.owner, self.owner.noise_scheduler
        configured = getattr(scheduler, "config", None)
        return scheduler, configured, owner.num_inference_steps, *sorted(loop_options.items())

    def _check_as_configured(self, schedule: Mapping[str, Any]) -> None:
        """Raise InputError where noise levels were changed by hand, beside the configuration."""
        levels = getattr(getattr(self.owner, "noise_scheduler", None), "alphas_cumprod", None)
        if levels is None:
            return
        configured = build_scheduler(schedule).alphas_cumprod
        if levels.shape != configured.shape or not torch.allclose(
            levels.to(configured), configured
        ):
            raise InputError(
                "noise_scheduler.alphas_cumprod is not what its configuration gives: it was changed by "
                "hand. Configure the scheduler so, for example with trained_betas"
            )
