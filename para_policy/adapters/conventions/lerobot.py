"""LeRobot's diffusion policy, 2024 to 0.6."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import steady
from para_policy.adapters.conventions.scheduled import Scheduled
from para_policy.errors import InputError


class LeRobotDiffusion(Scheduled):
    """`DiffusionPolicy`, whose `DiffusionModel` samples."""

    title = "a LeRobot DiffusionPolicy"
    entry = "select_action"
    place = "diffusion"
    required = ("batch_size", "global_cond", "generator")
    optional = ("noise",)
    needs = ("unet", "noise_scheduler", "num_inference_steps", "config", "parameters")

    def read(
        self,
        batch_size: int,
        global_cond: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Call:
        """Releases before 2025-09 have no `noise`; those before 2025-02 keep the shape elsewhere."""
        weight, config = next(iter(self.owner.parameters())), self.owner.config
        feature = getattr(config, "action_feature", None)
        width = config.output_shapes["action"][0] if feature is None else feature.shape[0]
        shape = (batch_size, config.horizon, width)
        if noise is not None and tuple(noise.shape) != shape:
            raise InputError(f"noise is {tuple(noise.shape)}; this policy needs {shape}")
        return Call(shape, weight.dtype, weight.device, global_cond, generator, noise)

    def network(self) -> Callable[..., Tensor]:
        unet = steady(self.owner.unet, "unet")
        return lambda x, t, condition=None: unet(x, t, global_cond=condition)
