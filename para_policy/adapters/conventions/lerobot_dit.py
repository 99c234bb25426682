"""LeRobot's `multi_task_dit`, of LeRobot 0.6: one convention for each of its objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import Convention, Named, as_ours, steady
from para_policy.adapters.conventions.scheduled import Scheduled
from para_policy.adapters.plan import Plan, Settings
from para_policy.checkpoints.lerobot.dit import our_name, why_left_out
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import build_scheduler, scheduler_kind
from para_policy.errors import InputError


class DiTObjective(Convention):
    """`MultiTaskDiTPolicy`, whose `objective` samples with the network that it is given."""

    entry = "select_action"
    place = "objective"
    required = ("model", "batch_size", "conditioning_vec")

    def read(self, model: nn.Module, batch_size: int, conditioning_vec: Tensor) -> Call:
        weight = next(iter(model.parameters()))
        shape = (batch_size, self.owner.horizon, self.owner.action_dim)
        return Call(shape, weight.dtype, weight.device, conditioning_vec)

    def network(self) -> Callable[..., Tensor]:
        return Named(steady(self.policy.noise_predictor, "noise_predictor"), "conditioning_vec")

    def weights(self) -> dict[str, Tensor]:
        """Of the network and the camera encoders, by our names; the objective itself has none."""
        return as_ours(self.policy.state_dict(), our_name, why_left_out)


class LeRobotDiT(DiTObjective, Scheduled):
    """Its diffusion."""

    title = "a LeRobot MultiTaskDiTPolicy with a diffusion"
    needs = ("noise_scheduler", "num_inference_steps", "horizon", "action_dim")


class LeRobotFlowDiT(DiTObjective):
    """Its flow matching, with Euler steps in a loop of its own."""

    title = "a LeRobot MultiTaskDiTPolicy with flow matching"
    needs = ("config", "_euler_integrate", "horizon", "action_dim")

    def plan(self, settings: Settings, loop_options: Mapping[str, Any]) -> Plan:
        """As `Convention.plan`."""
        config = self.owner.config
        if config.integration_method != "euler":
            raise InputError(
                f"the policy integrates with {config.integration_method}, which asks the network between "
                "its steps, too; only Euler steps can be solved in parallel: set "
                "policy.config.integration_method = 'euler'"
            )
        # As in a checkpoint that was converted, so that calibrations serve both.
        schedule = {
            "_class_name": "FlowMatching",
            "velocity": "data-noise",
            "sigma_min": config.sigma_min,
            "times": [1.0, 0.0],
        }
        steps = config.num_integration_steps if settings.steps is None else settings.steps
        process = Process.from_scheduler(build_scheduler(schedule, settings.scheduler), steps)
        kind = settings.scheduler or scheduler_kind(schedule)
        return Plan(self.source(loop_options), schedule, kind, process, 0.0)

    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        config = self.owner.config
        return config.num_integration_steps, config.sigma_min, config.integration_method
