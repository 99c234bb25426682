"""Observations of original diffusion_policy checkpoints, and the encoders of their cameras."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from para_policy.checkpoints.original.options import Options
from para_policy.networks.config import Backbone, Size, VisionConfig

_RESNET_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Observations:
    """What a policy observes.

    Attributes:
        inputs: shape of each, in the order of their features.
        names: how the names of the encoders' weights begin there and here.
        imagenet_norm: the encoder normalises images once more, with ImageNet's mean and deviation.
    """

    inputs: dict[str, tuple[int, ...]]
    action_dim: int
    vision: VisionConfig | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    imagenet_norm: bool = False


class LowdimOptions(Options):
    """Of the low-dimensional policies."""

    obs_dim: PositiveInt
    action_dim: PositiveInt

    def observations(self) -> Observations:
        return Observations({"obs": (self.obs_dim,)}, self.action_dim)


class _Meta(Options):
    """What the original project reads of `shape_meta`; others keep notes of their own in it."""

    model_config = ConfigDict(extra="ignore")


class _Action(_Meta):
    shape: tuple[PositiveInt]


class _Input(_Meta):
    shape: tuple[PositiveInt, ...]
    type: Literal["rgb", "low_dim"] = "low_dim"

    @model_validator(mode="after")
    def _known(self) -> _Input:
        if len(self.shape) != (3 if self.type == "rgb" else 1):
            raise ValueError(f"{self.type} of shape {self.shape}; expected (D,) or (3, H, W)")
        return self


class _ShapeMeta(_Meta):
    obs: dict[str, _Input] = Field(min_length=1)
    action: _Action

    def names(self, kind: Literal["rgb", "low_dim"]) -> list[str]:
        return [name for name, entry in self.obs.items() if entry.type == kind]

    def shapes(self, names: list[str]) -> dict[str, tuple[int, ...]]:
        return {name: self.obs[name].shape for name in names}


class HybridOptions(Options):
    """Of the hybrid policies, whose encoder is robomimic's with the defaults of its BC-RNN."""

    shape_meta: _ShapeMeta
    crop_shape: Size | None = (76, 76)
    obs_encoder_group_norm: bool = False
    eval_fixed_crop: bool = False

    def observations(self) -> Observations:
        meta = self.shape_meta
        cameras = meta.names("rgb")
        if cameras and self.crop_shape is not None and not self.eval_fixed_crop:
            warnings.warn(
                "policy.eval_fixed_crop is False: the original project then evaluates with randomly "
                "placed crops. Here the crop is always the centre of the image, so actions differ",
                stacklevel=2,
            )
        names = {}
        for i, camera in enumerate(cameras):
            theirs, ours = f"obs_encoder.obs_nets.{camera}.nets.", f"vision.encoders.{i}."
            names[f"{theirs}0.nets."] = f"{ours}backbone."
            names[f"{theirs}1.nets."] = f"{ours}pool.nets."
            names[f"{theirs}3."] = f"{ours}head."
        vision = (
            VisionConfig(
                cameras=tuple(cameras),
                norm="group" if self.obs_encoder_group_norm else "batch",
                crop=self.crop_shape,
            )
            if cameras
            else None
        )
        inputs = meta.shapes(list(meta.obs))
        return Observations(inputs, meta.action.shape[0], vision, names)


class _Resnet(Options):
    target: Literal["diffusion_policy.model.vision.model_getter.get_resnet"] = Field(
        alias="_target_"
    )
    name: Backbone
    weights: str | None = None
    """What training started from."""


class _MultiImageObsEncoder(Options):
    target: Literal[
        "diffusion_policy.model.vision.multi_image_obs_encoder.MultiImageObsEncoder"
    ] = Field(alias="_target_")
    shape_meta: dict[str, Any]
    rgb_model: _Resnet
    resize_shape: Size | dict[str, Size] | None = None
    crop_shape: Size | dict[str, Size] | None = None
    random_crop: bool = True
    use_group_norm: bool = False
    share_rgb_model: bool = False
    imagenet_norm: bool = False

    def vision(self, cameras: dict[str, tuple[int, ...]]) -> VisionConfig:
        resize = _same("resize_shape", self.resize_shape, list(cameras))
        if resize is not None and any(
            size > new
            for shape in cameras.values()
            for size, new in zip(shape[1:], resize, strict=True)
        ):
            warnings.warn(
                f"images are scaled down to resize_shape {resize} without antialiasing, as by "
                "torchvision 0.13, which the original project asks for; if the policy was trained "
                "with 0.17 or newer, set vision.antialias to true in config.json",
                stacklevel=2,
            )
        # There, a crop that is not random is overwritten before it is used, and the layers of a
        # shared network are not replaced.
        return VisionConfig(
            cameras=tuple(cameras),
            shared=self.share_rgb_model,
            backbone=self.rgb_model.name,
            norm="group" if self.use_group_norm and not self.share_rgb_model else "batch",
            resize=resize,
            antialias=False,
            crop=_same("crop_shape", self.crop_shape, list(cameras)) if self.random_crop else None,
            pooling="average",
        )


class ImageOptions(Options):
    """Of the image policy, whose encoder is a `MultiImageObsEncoder`."""

    shape_meta: _ShapeMeta
    obs_encoder: _MultiImageObsEncoder

    def observations(self) -> Observations:
        meta, encoder = self.shape_meta, self.obs_encoder
        if _ShapeMeta.model_validate(encoder.shape_meta) != meta:
            raise ValueError("obs_encoder.shape_meta and shape_meta differ")
        cameras, vectors = sorted(meta.names("rgb")), sorted(meta.names("low_dim"))
        names = {
            f"obs_encoder.key_model_map.{network}.{child}.": f"vision.encoders.{i}.backbone.{k}."
            for i, network in enumerate(["rgb"] if encoder.share_rgb_model else cameras)
            for k, child in enumerate(_RESNET_CHILDREN)
        }
        return Observations(
            meta.shapes(cameras + vectors),
            meta.action.shape[0],
            encoder.vision(meta.shapes(cameras)) if cameras else None,
            names if cameras else {},
            encoder.imagenet_norm,
        )


def _same(option: str, sizes: Size | dict[str, Size] | None, cameras: list[str]) -> Size | None:
    """The one size of all cameras."""
    if not isinstance(sizes, dict):
        return sizes
    chosen = {sizes.get(name) for name in cameras}
    if len(chosen) > 1 or None in chosen:
        raise ValueError(f"obs_encoder.{option} is {sizes}; expected one size for all cameras")
    return chosen.pop()
