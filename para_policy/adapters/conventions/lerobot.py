"""LeRobot's diffusion policy, 2024 to 0.6."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions.convention import Named, as_ours, steady
from para_policy.adapters.conventions.scheduled import Scheduled
from para_policy.checkpoints.lerobot.options import our_name, why_left_out
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
        return Named(steady(self.owner.unet, "unet"), "global_cond")

    def weights(self) -> dict[str, Tensor]:
        separate = bool(getattr(self.owner.config, "use_separate_rgb_encoder_per_camera", False))
        weights = self.owner.state_dict(prefix=f"{self.place}.")
        return as_ours(weights, lambda name: our_name(name, separate), why_left_out)
