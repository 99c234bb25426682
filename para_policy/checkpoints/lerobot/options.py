"""Keys of a LeRobot diffusion policy's config.json that matter, with their types.

Source: `lerobot/policies/diffusion/configuration_diffusion.py` of huggingface/lerobot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from para_policy.networks.config import Backbone, UnetConfig

ACTION = "action"
STATE = "observation.state"
ENVIRONMENT = "observation.environment_state"
_IMAGE = "observation.image"

# Larger numbers are mistakes, and building such a network would end without a clear message.
Count = Annotated[int, Field(ge=1, le=100_000)]
Shape = Annotated[list[Count], Field(max_length=8)]
Pair = Annotated[list[Count], Field(min_length=2, max_length=2)]
Kind = Literal["STATE", "VISUAL", "ENV", "ACTION", "REWARD", "LANGUAGE"]
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


class Options(StrictModel):
    """What every version writes, and with its former behaviour what only later ones write."""

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
    num_train_timesteps: Count
    beta_schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear", "sigmoid", "laplace"]
    beta_start: float = Field(gt=0, lt=1)
    beta_end: float = Field(gt=0, lt=1)
    prediction_type: Literal["epsilon", "sample"]
    clip_sample: bool
    clip_sample_range: float = Field(gt=0)
    num_inference_steps: Count | None
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"
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

    def scheduler(self) -> dict[str, Any]:
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

    def network(self) -> UnetConfig:
        return UnetConfig(
            down_dims=tuple(self.down_dims),
            step_embed_dim=self.diffusion_step_embed_dim,
            kernel_size=self.kernel_size,
            n_groups=self.n_groups,
            film_scale=self.use_film_scale_modulation,
        )


class Options2025(Options):
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
