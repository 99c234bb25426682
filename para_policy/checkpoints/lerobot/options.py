"""Keys of the config.json of LeRobot's `diffusion` that matter, with their types.

Source: `lerobot/policies/diffusion/configuration_diffusion.py` of huggingface/lerobot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from para_policy.networks.config import Backbone, UnetConfig, VisionConfig
from para_policy.policies.build import VISION

ACTION = "action"
STATE = "observation.state"
ENVIRONMENT = "observation.environment_state"
_IMAGE = "observation.image"

_ENCODER, _NETWORK = "diffusion.rgb_encoder.", "diffusion.unet."
CONSTANTS = {
    # robomimic's spatial softmax, which LeRobot used until June 2024, holds two vectors.
    "pool.pos_grid": "positions of pixels, which follow from the size of the image",
    "pool.pos_x": "positions of pixels, which follow from the size of the image",
    "pool.pos_y": "positions of pixels, which follow from the size of the image",
    "pool.temperature": "temperature of the spatial softmax, which is 1",
}

# Larger numbers are mistakes, and building such a network would end without a clear message.
Count = Annotated[int, Field(ge=1, le=100_000)]
Shape = Annotated[list[Count], Field(max_length=8)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Kind = Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
Weights = Callable[[], Mapping[str, Tensor]]
"""Reads the weights of the checkpoint, by their names there."""
Mode = Literal["MIN_MAX", "MEAN_STD", "QUANTILES", "QUANTILE10", "IDENTITY"]


class StrictModel(BaseModel):
    """JSON types must be right: no "16" or true for 16, no NaN. Unknown keys are not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class FeatureModel(StrictModel):
    """Type and shape of an input or output."""

    type: Kind
    shape: Shape


@dataclass(frozen=True)
class Feature:
    """An input or the action: how it is called, shaped and normalised."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    mode: Mode


class ScheduleOptions(StrictModel):
    """Noise schedule of a diffusion."""

    num_train_timesteps: Count
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear", "sigmoid", "laplace"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    prediction_type: Literal["epsilon", "sample"]
    clip_sample: bool
    clip_sample_range: float = Field(gt=0)
    num_inference_steps: Count | None
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"

    @property
    def num_steps(self) -> int | None:
        """Denoising steps; None for all."""
        return self.num_inference_steps

    def scheduler(self) -> dict[str, Any]:
        """As of diffusers."""
        return {
            "_class_name": f"{self.noise_scheduler_type}Scheduler",
            "num_train_timesteps": self.num_train_timesteps,
            "beta_schedule": self.beta_schedule,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "prediction_type": self.prediction_type,
            "clip_sample": self.clip_sample,
            "clip_sample_range": self.clip_sample_range,
        }


class Options(ScheduleOptions):
    """What every version writes, and with its former behaviour what only later ones write."""

    kinds: ClassVar[tuple[Kind, ...]] = ("STATE", "VISUAL", "ENV")
    """Of the inputs that the network is given, in their order."""

    n_obs_steps: Count
    horizon: Count
    n_action_steps: Count
    vision_backbone: Backbone
    crop_shape: Pair | None
    use_group_norm: bool
    spatial_softmax_num_keypoints: Count
    down_dims: list[Count]
    kernel_size: Count
    n_groups: Count
    diffusion_step_embed_dim: Count
    use_film_scale_modulation: bool
    use_separate_rgb_encoder_per_camera: bool = False
    resize_shape: Pair | None = None
    crop_ratio: float = Field(1.0, gt=0, le=1)

    def crop(self) -> tuple[int, int] | None:
        """Size of the crop: with `resize_shape`, `crop_ratio` alone decides."""
        if self.resize_shape is None:
            return None if self.crop_shape is None else (self.crop_shape[0], self.crop_shape[1])
        if self.crop_ratio == 1:
            return None
        height, width = (int(size * self.crop_ratio) for size in self.resize_shape)
        return height, width

    def vision(self, cameras: Sequence[Feature], weights: Weights) -> VisionConfig:
        """Of the size that the configuration tells, whatever the `weights`."""
        resize, keypoints = self.resize_shape, self.spatial_softmax_num_keypoints
        return VisionConfig(
            cameras=tuple(camera.name for camera in cameras),
            shared=not self.use_separate_rgb_encoder_per_camera,
            backbone=self.vision_backbone,
            norm="group" if self.use_group_norm else "batch",
            resize=None if resize is None else (resize[0], resize[1]),
            crop=self.crop(),
            num_keypoints=keypoints,
            feature_dim=2 * keypoints,
        )

    def network(self) -> UnetConfig:
        return UnetConfig(
            down_dims=tuple(self.down_dims),
            step_embed_dim=self.diffusion_step_embed_dim,
            kernel_size=self.kernel_size,
            n_groups=self.n_groups,
            film_scale=self.use_film_scale_modulation,
        )

    def our_name(self, name: str) -> str:
        """Ours for a weight of theirs."""
        return our_name(name, self.use_separate_rgb_encoder_per_camera)

    @staticmethod
    def why_left_out(name: str) -> str | None:
        """Why a weight of theirs is not needed; None if it is."""
        return why_left_out(name)


class TypedFeatures(StrictModel):
    """Features have types, and each type a mode; a type without one is not normalised."""

    input_features: dict[str, FeatureModel]
    output_features: dict[str, FeatureModel]
    normalization_mapping: dict[str, Mode]

    def features(self) -> list[Feature]:
        both = {**self.input_features, **self.output_features}
        return [
            Feature(
                name,
                given.type,
                tuple(given.shape),
                self.normalization_mapping.get(given.type, "IDENTITY"),
            )
            for name, given in both.items()
        ]


class Options2025(Options, TypedFeatures):
    """As written since early 2025."""


class Options2024(Options):
    """Names say what features are, and each has its own mode, or is not normalised."""

    input_shapes: dict[str, Shape]
    output_shapes: dict[str, Shape]
    input_normalization_modes: dict[str, Literal["mean_std", "min_max"]]
    output_normalization_modes: dict[str, Literal["mean_std", "min_max"]]

    def features(self) -> list[Feature]:
        kinds: dict[str, Kind] = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}
        modes = {**self.input_normalization_modes, **self.output_normalization_modes}
        upper: dict[str | None, Mode] = {"mean_std": "MEAN_STD", "min_max": "MIN_MAX"}
        return [
            Feature(name, kind, tuple(shape), upper.get(modes.get(name), "IDENTITY"))
            for name, shape in {**self.input_shapes, **self.output_shapes}.items()
            if (kind := "VISUAL" if name.startswith(_IMAGE) else kinds.get(name)) is not None
        ]


class Step(StrictModel):
    """Of a pipeline of processors."""

    registry_name: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    state_file: str | None = None

    @property
    def is_on(self) -> bool:
        """Steps that can be switched off, such as LeRobot's relative actions, pass values on then."""
        return self.config.get("enabled") is not False


class Pipeline(StrictModel):
    """What happens to observations before, or to actions after the policy, by the files beside it."""

    steps: list[Step]


def our_name(name: str, separate_encoders: bool) -> str:
    """A weight's name in our network, for its name in LeRobot's policy.

    Args:
        separate_encoders: whether every camera has its own encoder.
    """
    if name.startswith(_ENCODER):
        place = name.removeprefix(_ENCODER)
        place = place if separate_encoders else f"0.{place}"
        return f"{VISION}encoders." + re.sub(r"^([0-9]+)[.]out[.]", r"\1.head.", place)
    place = name.removeprefix(_NETWORK)
    # The third module of a level scales time down or up; theirs is the convolution itself.
    place = re.sub(r"^((?:down|up)_modules[.][0-9]+[.]2)[.]", r"\1.conv.", place)
    return place.replace(".conv1.", ".blocks.0.").replace(".conv2.", ".blocks.1.")


def why_left_out(name: str) -> str | None:
    """Why a weight of theirs is not needed; None if it is."""
    return next((why for end, why in CONSTANTS.items() if name.endswith(end)), None)
