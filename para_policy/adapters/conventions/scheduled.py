"""Policies that sample with a diffusers scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from para_policy.adapters.conventions.convention import Convention
from para_policy.adapters.plan import Plan, Settings
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedule_config import schedule_of
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind


class Scheduled(Convention):
    """A convention whose owner has a `noise_scheduler` and `num_inference_steps`.

    Both are read at every call, so that changing them on the live policy keeps working.
    """

    def plan(self, settings: Settings, loop_options: Mapping[str, Any]) -> Plan:
        """As `Convention.plan`; `loop_options` are those of `Process.from_scheduler`."""
        schedule = schedule_of(self.owner.noise_scheduler)
        # Not the policy's own object, which holds the state of its last loop.
        scheduler = build_scheduler(schedule, settings.scheduler)
        steps = self.owner.num_inference_steps if settings.steps is None else settings.steps
        process = Process.from_scheduler(scheduler, steps, **loop_options)
        kind = settings.scheduler or scheduler_kind(schedule)
        eta = loop_options.get("eta", 0.0)
        return Plan(self.source(loop_options), schedule, kind, process, eta)

    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        owner = self.owner
        return owner.noise_scheduler, owner.num_inference_steps, *sorted(loop_options.items())
