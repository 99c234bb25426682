"""LeRobot's `multi_task_dit`, of LeRobot 0.6: one convention for each of its objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import Convention, Named, as_ours, steady
from para_policy.adapters.conventions.scheduled import Scheduled
from para_policy.checkpoints.lerobot.dit import DiTOptions, flow_schedule
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

    @property
    def holder(self) -> nn.Module:
        """The policy; the objective itself has no weights."""
        module: nn.Module = self.policy
        return module

    def weights(self) -> dict[str, Tensor]:
        """Of the network and the camera encoders, by our names."""
        return as_ours(self.holder.state_dict(), DiTOptions.our_name, DiTOptions.why_left_out)


class LeRobotDiT(DiTObjective, Scheduled):
    """Its diffusion."""

    title = "a LeRobot MultiTaskDiTPolicy with a diffusion"
    needs = ("noise_scheduler", "num_inference_steps", "horizon", "action_dim")


class LeRobotFlowDiT(DiTObjective, Scheduled):
    """Its flow matching, with Euler steps in a loop of its own."""

    title = "a LeRobot MultiTaskDiTPolicy with flow matching"
    needs = ("config", "_euler_integrate", "horizon", "action_dim")

    def schedule(self) -> dict[str, Any]:
        config = self.owner.config
        if config.integration_method != "euler":
            raise InputError(
                f"the policy integrates with {config.integration_method}, which asks the network between "
                "its steps, too; only Euler steps can be solved in parallel: set "
                "policy.config.integration_method = 'euler'"
            )
        return flow_schedule(config.sigma_min)

    @property
    def own_steps(self) -> Any:
        return self.owner.config.num_integration_steps

    def source(self, loop_options: Mapping[str, Any]) -> tuple[Any, ...]:
        config = self.owner.config
        return config.num_integration_steps, config.sigma_min, config.integration_method
