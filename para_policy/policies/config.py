"""What a checkpoint says about itself: shapes, schedule, network. Validated by pydantic."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from para_policy.schedulers import build_scheduler


class UnetConfig(BaseModel):
    """Size of the `ConditionalUnet1D`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    down_dims: tuple[PositiveInt, ...] = Field((256, 512, 1024), min_length=2)
    step_embed_dim: int = Field(256, ge=4)
    kernel_size: int = Field(5, ge=1)
    n_groups: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _buildable(self) -> UnetConfig:
        if any(channels % self.n_groups for channels in self.down_dims):
            raise ValueError(
                f"down_dims {self.down_dims} must be multiples of n_groups {self.n_groups}"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size is {self.kernel_size}; it must be odd to keep the horizon"
            )
        if self.step_embed_dim % 2:
            raise ValueError(
                f"step_embed_dim is {self.step_embed_dim}; half are sines: it must be even"
            )
        return self


class PolicyConfig(BaseModel):
    """Configuration of a state-observation diffusion policy (`config.json` of a native checkpoint).

    Attributes:
        inputs: shape of one observation of each input, in the order of the condition vector.
        control_hz: rate in Hz at which the demonstrations were recorded; actions are 1 / control_hz apart.
        noise_scheduler: a diffusers scheduler configuration with its `_class_name`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    type: Literal["diffusion_unet1d_state"] = "diffusion_unet1d_state"
    inputs: dict[str, tuple[int, ...]] = Field(min_length=1)
    action_names: tuple[str, ...] = Field(min_length=1)
    n_obs_steps: int = Field(2, ge=1)
    horizon: int = Field(16, ge=1)
    n_action_steps: int = Field(8, ge=1)
    control_hz: float = Field(10.0, gt=0)
    network: UnetConfig = Field(default_factory=lambda: UnetConfig.model_validate({}))
    noise_scheduler: dict[str, Any]

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @property
    def condition_dim(self) -> int:
        """Width of the condition vector: all inputs of all observation steps."""
        return self.n_obs_steps * sum(math.prod(shape) for shape in self.inputs.values())

    @field_validator("noise_scheduler")
    @classmethod
    def _known_schedule(cls, value: dict[str, Any]) -> dict[str, Any]:
        build_scheduler(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PolicyConfig:
        stride = 2 ** (len(self.network.down_dims) - 1)
        if self.horizon % stride:
            raise ValueError(
                f"horizon is {self.horizon}; with {len(self.network.down_dims)} U-Net levels "
                f"it must be divisible by {stride}"
            )
        available = self.horizon - self.n_obs_steps + 1
        if self.n_action_steps > available:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; "
                f"at most horizon - n_obs_steps + 1 = {available} fit"
            )
        if "action" in self.inputs:
            raise ValueError(
                "no input may be called 'action': its statistics would be the action's"
            )
        if any(size < 1 for shape in self.inputs.values() for size in shape):
            raise ValueError(f"inputs must have positive sizes, got {self.inputs}")
        return self
