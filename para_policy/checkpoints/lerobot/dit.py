"""Keys of the config.json of LeRobot's `multi_task_dit` that matter, with their types.

Source: `lerobot/policies/multi_task_dit/configuration_multi_task_dit.py` of huggingface/lerobot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from para_policy.checkpoints.lerobot.clip import clip_size, shape
from para_policy.checkpoints.lerobot.options import (
    Count,
    Feature,
    Kind,
    Pair,
    ScheduleOptions,
    TypedFeatures,
    Weights,
)
from para_policy.networks.config import ClipConfig, DiTConfig
from para_policy.policies.build import VISION

TEXT = "observation_encoder.text_encoder."
"""Prefix of the weights of the text tower and of the projection of its features."""

_NETWORK = "noise_predictor."
_VISION = re.compile(
    r"observation_encoder[.]vision_encoder(?:s[.]([0-9]+))?[.]model[.]vision_model[.]"
)


class DiTOptions(ScheduleOptions, TypedFeatures):
    """As LeRobot 0.6 writes them."""

    kinds: ClassVar[tuple[Kind, ...]] = ("STATE", "VISUAL")
    """Of the inputs that the network is given, in their order; its text comes after them."""

    n_obs_steps: Count
    horizon: Count
    n_action_steps: Count
    objective: Literal["diffusion", "flow_matching"]
    sigma_min: float = Field(ge=0, lt=1)
    num_integration_steps: Count
    integration_method: Literal["euler", "rk4"]
    hidden_dim: Count
    num_layers: Count
    num_heads: Count
    dropout: float
    use_positional_encoding: bool
    timestep_embed_dim: Count
    use_rope: bool
    rope_base: float
    vision_encoder_name: str
    use_separate_rgb_encoder_per_camera: bool
    image_resize_shape: Pair | None
    image_crop_shape: Pair | None
    text_encoder_name: str

    @property
    def flows(self) -> bool:
        """The network predicts velocities of a flow."""
        return self.objective == "flow_matching"

    @property
    def num_steps(self) -> int | None:
        """Denoising steps; None for all."""
        return self.num_integration_steps if self.flows else self.num_inference_steps

    def scheduler(self) -> dict[str, Any]:
        """As of diffusers; a flow as of our own `FlowMatching`."""
        if not self.flows:
            return super().scheduler()
        return flow_schedule(self.sigma_min)

    def network(self) -> DiTConfig:
        return DiTConfig(**self.model_dump(include=set(DiTConfig.model_fields) - {"kind"}))

    def vision(self, cameras: Sequence[Feature], weights: Weights) -> ClipConfig:
        """Of the size that `weights` tell."""
        found = weights()
        towers = (place[0] for name in found if (place := _VISION.match(name)))
        tower = next(towers, "observation_encoder.vision_encoder.model.vision_model.")
        size = clip_size(found, tower, self.vision_encoder_name, "vision")
        patch = shape(found, f"{tower}embeddings.patch_embedding.weight", 4)[-1]
        positions = shape(found, f"{tower}embeddings.position_embedding.weight", 2)[0]
        resize, crop = self.image_resize_shape, self.image_crop_shape
        whole = resize or cameras[0].shape[1:]
        if crop is not None and any(cut > size for cut, size in zip(crop, whole, strict=False)):
            crop = None  # as LeRobot does
        return ClipConfig(
            cameras=tuple(camera.name for camera in cameras),
            shared=not self.use_separate_rgb_encoder_per_camera,
            resize=None if resize is None else (resize[0], resize[1]),
            crop=None if crop is None else (crop[0], crop[1]),
            size=size,
            patch_size=patch,
            image_size=patch * math.isqrt(max(positions - 1, 0)),
        )

    @staticmethod
    def our_name(name: str) -> str:
        """Ours for a weight of theirs."""
        tower = _VISION.match(name)
        if tower:
            return f"{VISION}encoders.{tower[1] or 0}.{name[tower.end() :]}"
        place = name.removeprefix(_NETWORK)
        place = place.replace(".multihead_attn.in_proj_", ".attn.qkv_proj.")
        return place.replace(".multihead_attn.", ".attn.")

    @staticmethod
    def why_left_out(name: str) -> str | None:
        """Why a weight of theirs is not needed; None if it is."""
        if name.startswith(TEXT):
            return "text tower: a fixed text is its features"
        if _VISION.match(name) and ".post_layernorm." in name:
            return "a norm after the features, which LeRobot does not use"
        return None


def flow_schedule(sigma_min: float) -> dict[str, Any]:
    """Its flow as our own `FlowMatching`: the same for a checkpoint and a live policy, so that
    calibrations serve both."""
    return {
        "_class_name": "FlowMatching",
        "velocity": "data-noise",
        "sigma_min": sigma_min,
        "times": [1.0, 0.0],
    }
