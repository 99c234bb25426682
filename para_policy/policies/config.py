"""Configuration of a policy: what a checkpoint says about itself, validated by pydantic."""

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
from para_policy.errors import shown
from para_policy.networks.config import (
    ClipConfig,
    Count,
    DiTConfig,
    Steps,
    TransformerConfig,
    UnetConfig,
    VisionConfig,
)

FORMAT_VERSION: Final = 2

# Far beyond every robot that is known; 0.4 GB as float32.
_MOST_OBSERVED = 100_000_000
_MOST_CONDITIONS = 1_000_000
_MOST_ACTIONS = 100_000
_MOST_STATES = 100_000_000


def _is_note(value: Any) -> bool:
    """Whether it is of the kind that diffusers notes about a configuration, under a private key."""
    texts = value if isinstance(value, list) else [value]
    return all(text is None or isinstance(text, str) for text in texts)


def _kind(default: str) -> Discriminator:
    """The key `kind` says which configuration it is; files from before there was a choice lack it."""

    def kind(config: Any) -> str:
        found = config.get("kind", default) if isinstance(config, dict) else None
        return str(getattr(config, "kind", default) if found is None else found)

    return Discriminator(kind)


NetworkConfig = Annotated[
    Annotated[UnetConfig, Tag("unet1d")]
    | Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[DiTConfig, Tag("dit")],
    _kind("unet1d"),
]
CameraConfig = Annotated[
    Annotated[VisionConfig, Tag("resnet")] | Annotated[ClipConfig, Tag("clip")], _kind("resnet")
]


class TaskConfig(BaseModel):
    """The text that tells a policy of several tasks what to do, fixed.

    Its features are among the weights, as `task.features`: they stand at the end of every
    observation step of the condition.

    Attributes:
        text: for people; empty where there was none.
        width: number of features.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(max_length=10_000)
    width: Count


class PolicyConfig(BaseModel):
    """Configuration of a diffusion policy (`config.json` of a native checkpoint).

    Attributes:
        inputs: shape of one observation of each input, in the order of the condition vector;
            images are (3, height, width).
        vision: encoders of the inputs that are images; None if there are none.
        task: what it was told in words; None if it takes no text.
        first_action: index in the horizon of the action that belongs to the newest observation.
        control_hz: rate in Hz at which the demonstrations were recorded, so that actions are
            1 / control_hz apart; from one in 1000 s to 100 kHz; None if the checkpoint does not say.
        units: physical unit of an input, or of "action", where it is known.
        noise_scheduler: a diffusers scheduler configuration with its `_class_name`.
        num_inference_steps: denoising steps unless the caller says otherwise; None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[2] = FORMAT_VERSION
    type: Literal["diffusion"] = "diffusion"
    inputs: dict[str, Annotated[tuple[Count, ...], Field(max_length=8)]] = Field(min_length=1)
    vision: CameraConfig | None = None
    task: TaskConfig | None = None
    action_names: tuple[str, ...] = Field(min_length=1)
    n_obs_steps: Steps = 2
    horizon: Steps = 16
    n_action_steps: Steps = 8
    first_action: int = Field(default_factory=lambda data: data.get("n_obs_steps", 1) - 1, ge=0)
    control_hz: float | None = Field(10.0, ge=1e-3, le=1e5, strict=True)
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
        return sum(widths.values()) + (0 if self.task is None else self.task.width)

    @property
    def condition_dim(self) -> int:
        """Width of the condition vector: all inputs of all observation steps."""
        return self.n_obs_steps * self.feature_dim

    @field_validator("noise_scheduler")
    @classmethod
    def _known_schedule(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key.startswith("_") and not _is_note(value[key]):
                raise ValueError(f"{key} is {shown(value[key])}; expected text or a list of texts")
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
        self._check_products()
        return self

    def _check_products(self) -> None:
        """Sizes that are each allowed may together be more than any machine holds."""
        steps = max(
            self.noise_scheduler.get("num_train_timesteps", 1000), self.num_inference_steps or 1
        )
        actions = self.horizon * self.action_dim
        observed = self.n_obs_steps * sum(math.prod(shape) for shape in self.inputs.values())
        sizes = {
            "an observation, n_obs_steps of all inputs,": (observed, _MOST_OBSERVED),
            "a condition, n_obs_steps of all features,": (self.condition_dim, _MOST_CONDITIONS),
            "a chunk, horizon of action_names,": (actions, _MOST_ACTIONS),
            "a solve, num_train_timesteps of a chunk,": (steps * actions, _MOST_STATES),
        }
        for what, (size, most) in sizes.items():
            if size > most:
                raise ValueError(f"{what} has {size} numbers; expected at most {most}")

    def _check_cameras(self, vision: VisionConfig | ClipConfig) -> None:
        for name in vision.cameras:
            shape = self.inputs.get(name)
            if shape is None or len(shape) != 3 or shape[0] != 3:
                raise ValueError(
                    f"camera {name!r} must be an input of shape (3, height, width), got {shape}"
                )
            try:
                vision.seen((shape[1], shape[2]))
            except ValueError as error:
                raise ValueError(f"camera {name!r}: {error}") from error
