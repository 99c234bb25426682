"""What a checkpoint says about itself: shapes, schedule, networks. Validated by pydantic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from para_policy.diffusion.schedulers import build_scheduler

FORMAT_VERSION: Final = 2
_MOST_TIMESTEPS = 100_000
_CHANNELS = {"resnet18": 512, "resnet34": 512, "resnet50": 2048}

Count = Annotated[int, Field(ge=1, le=100_000)]
"""Larger numbers are mistakes, and what they describe could not be built."""

Size = tuple[Count, Count]
"""Height and width in pixels."""


class UnetConfig(BaseModel):
    """Size of the `ConditionalUnet1D`.

    Attributes:
        film_scale: the condition scales the channels of a block, and not only shifts them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["unet1d"] = "unet1d"
    down_dims: tuple[Count, ...] = Field((256, 512, 1024), min_length=2, max_length=16)
    step_embed_dim: int = Field(256, ge=4, le=100_000)
    kernel_size: Count = 5
    n_groups: Count = 8
    film_scale: bool = True

    @model_validator(mode="after")
    def _buildable(self) -> UnetConfig:
        if any(channels % self.n_groups for channels in self.down_dims):
            raise ValueError(
                f"down_dims {self.down_dims} must be multiples of n_groups {self.n_groups}"
            )
        if self.down_dims[0] % 8:
            raise ValueError(
                f"down_dims {self.down_dims} must begin with a multiple of 8, the groups of the last block"
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


class TransformerConfig(BaseModel):
    """Size of the `TransformerForDiffusion`, with the original project's names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["transformer"] = "transformer"
    n_layer: int = Field(12, ge=1, le=1000)
    n_head: Count = 12
    n_emb: int = Field(768, ge=4, le=100_000)
    n_cond_layers: int = Field(0, ge=0, le=1000)
    causal_attn: bool = False
    p_drop_emb: float = Field(0.1, ge=0, lt=1)
    p_drop_attn: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _buildable(self) -> TransformerConfig:
        if self.n_emb % self.n_head or self.n_emb % 2:
            raise ValueError(
                f"n_emb is {self.n_emb}; it must be even and a multiple of n_head {self.n_head}"
            )
        return self


def _kind(network: Any) -> str:
    if isinstance(network, dict):
        return str(network.get("kind", "unet1d"))
    return str(getattr(network, "kind", "unet1d"))


NetworkConfig = Annotated[
    Annotated[UnetConfig, Tag("unet1d")] | Annotated[TransformerConfig, Tag("transformer")],
    Discriminator(_kind),
]


class VisionConfig(BaseModel):
    """How camera images become features.

    Attributes:
        cameras: inputs that are images, in the order of their encoders.
        shared: one encoder for all cameras, or one for each.
        norm: layers of the backbone; "group" has channels / 16 groups.
        resize: images are first scaled to this size.
        antialias: of that scaling; torchvision does so since release 0.17.
        crop: then the centre of this size is cut out.
        pooling: "spatial_softmax" locates keypoints and maps them to `feature_dim` features;
            "average" takes the mean of each channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cameras: tuple[str, ...] = Field(min_length=1)
    shared: bool = False
    backbone: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    norm: Literal["batch", "group"] = "group"
    resize: Size | None = None
    antialias: bool = True
    crop: Size | None = None
    pooling: Literal["spatial_softmax", "average"] = "spatial_softmax"
    num_keypoints: Count = 32
    feature_dim: Count = 64

    @property
    def channels(self) -> int:
        """Of the backbone's last layer."""
        return _CHANNELS[self.backbone]

    @property
    def width(self) -> int:
        """Features of one image."""
        return self.feature_dim if self.pooling == "spatial_softmax" else self.channels


class PolicyConfig(BaseModel):
    """Configuration of a diffusion policy (`config.json` of a native checkpoint).

    Attributes:
        inputs: shape of one observation of each input, in the order of the condition vector;
            images are (3, height, width).
        vision: encoders of the inputs that are images; None if there are none.
        first_action: index in the horizon of the action that belongs to the newest observation.
        control_hz: rate in Hz at which the demonstrations were recorded, so that actions are
            1 / control_hz apart; None if the checkpoint does not say.
        units: physical unit of an input, or of "action", where it is known.
        noise_scheduler: a diffusers scheduler configuration with its `_class_name`.
        num_inference_steps: denoising steps unless the caller says otherwise; None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[2] = FORMAT_VERSION
    type: Literal["diffusion"] = "diffusion"
    inputs: dict[str, tuple[Count, ...]] = Field(min_length=1)
    vision: VisionConfig | None = None
    action_names: tuple[str, ...] = Field(min_length=1)
    n_obs_steps: Count = 2
    horizon: Count = 16
    n_action_steps: Count = 8
    first_action: int = Field(default_factory=lambda data: data.get("n_obs_steps", 1) - 1, ge=0)
    control_hz: float | None = Field(10.0, gt=0)
    units: dict[str, str] = Field(default_factory=dict)
    network: NetworkConfig = Field(default_factory=lambda: UnetConfig.model_validate({}))
    noise_scheduler: dict[str, Any]
    num_inference_steps: Count | None = None

    def changed(self, changes: Mapping[str, Any]) -> PolicyConfig:
        """A copy with other values of some fields, checked."""
        return PolicyConfig.model_validate({**self.model_dump(), **changes})

    @property
    def action_dim(self) -> int:
        return len(self.action_names)

    @property
    def cameras(self) -> tuple[str, ...]:
        return () if self.vision is None else self.vision.cameras

    @property
    def feature_dim(self) -> int:
        """Width of one observation step as the network sees it."""
        widths = {name: math.prod(shape) for name, shape in self.inputs.items()}
        if self.vision is not None:
            widths |= dict.fromkeys(self.vision.cameras, self.vision.width)
        return sum(widths.values())

    @property
    def condition_dim(self) -> int:
        """Width of the condition vector: all inputs of all observation steps."""
        return self.n_obs_steps * self.feature_dim

    @field_validator("noise_scheduler")
    @classmethod
    def _known_schedule(cls, value: dict[str, Any]) -> dict[str, Any]:
        count = value.get("num_train_timesteps", 0)
        if isinstance(count, int) and count > _MOST_TIMESTEPS:
            raise ValueError(f"num_train_timesteps is {count}; expected at most {_MOST_TIMESTEPS}")
        build_scheduler(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> PolicyConfig:
        if isinstance(self.network, UnetConfig):
            stride = 2 ** (len(self.network.down_dims) - 1)
            if self.horizon % stride:
                raise ValueError(
                    f"horizon is {self.horizon}; with {len(self.network.down_dims)} U-Net levels "
                    f"it must be divisible by {stride}"
                )
        available = self.horizon - self.first_action
        if self.n_action_steps > available:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}; at most horizon - first_action = "
                f"{self.horizon} - {self.first_action} = {available} fit"
            )
        if "action" in self.inputs:
            raise ValueError(
                "no input may be called 'action': its statistics would be the action's"
            )
        foreign = set(self.units) - {*self.inputs, "action"}
        if foreign:
            raise ValueError(f"units name {sorted(foreign)}, which are neither inputs nor 'action'")
        if self.vision is not None:
            self._check_cameras(self.vision)
        return self

    def _check_cameras(self, vision: VisionConfig) -> None:
        for name in vision.cameras:
            shape = self.inputs.get(name)
            if shape is None or len(shape) != 3 or shape[0] != 3:
                raise ValueError(
                    f"camera {name!r} must be an input of shape (3, height, width), got {shape}"
                )
            size = vision.resize or shape[1:]
            if vision.crop is not None and any(
                cut > whole for cut, whole in zip(vision.crop, size, strict=True)
            ):
                raise ValueError(f"crop {vision.crop} is larger than the image {size} of {name!r}")
