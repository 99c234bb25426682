"""Configurations of networks: sizes, validated by pydantic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
"""Networks of He et al. 2015, by their torchvision names."""

_SHALLOW = ("resnet18", "resnet34")

Count = Annotated[int, Field(ge=1, le=100_000, strict=True)]
"""Larger numbers are mistakes, and what they describe could not be built."""

Steps = Annotated[int, Field(ge=1, le=4096, strict=True)]
"""Of a chunk or an observation. Masks of attention grow with their product, at most to 64 MiB."""

_Layers = Annotated[int, Field(le=100, strict=True)]
"""A module is made of each, however small the file that asks for them."""

_MOST_PIXELS = 2**24
_MOST_PATCHES = 2**14


def _affordable(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(f"{size[0]} x {size[1]} pixels; expected at most {_MOST_PIXELS} of them")
    return size


Size = Annotated[tuple[Count, Count], AfterValidator(_affordable)]
"""Height and width in pixels."""


class UnetConfig(BaseModel):
    """Size of the `ConditionalUnet1D`.

    Attributes:
        film_scale: the condition scales the channels of a block, and not only shifts them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["unet1d"] = "unet1d"
    down_dims: tuple[Count, ...] = Field((256, 512, 1024), min_length=1, max_length=16)
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
    n_layer: _Layers = Field(12, ge=1)
    n_head: Count = 12
    n_emb: int = Field(768, ge=4, le=100_000)
    n_cond_layers: _Layers = Field(0, ge=0)
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


class DiTConfig(BaseModel):
    """Size of the `DiT`, with LeRobot's names; see there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dit"] = "dit"
    hidden_dim: int = Field(512, ge=1, le=100_000)
    num_layers: _Layers = Field(6, ge=1)
    num_heads: Count = 8
    dropout: float = Field(0.1, ge=0, le=1)
    use_positional_encoding: bool = False
    timestep_embed_dim: int = Field(256, ge=4, le=100_000)
    use_rope: bool = True
    rope_base: float = Field(10000.0, gt=0, le=1e12)

    @model_validator(mode="after")
    def _buildable(self) -> DiTConfig:
        if self.hidden_dim % self.num_heads:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}; it must be a multiple of num_heads "
                f"{self.num_heads}"
            )
        if self.use_rope and self.hidden_dim // self.num_heads % 2:
            raise ValueError(
                f"hidden_dim {self.hidden_dim} with num_heads {self.num_heads} gives heads of odd "
                "width, of which use_rope turns pairs: choose fewer or more heads"
            )
        if self.timestep_embed_dim % 2:
            raise ValueError(
                f"timestep_embed_dim is {self.timestep_embed_dim}; half are sines: it must be even"
            )
        return self


class CamerasConfig(BaseModel):
    """Which inputs are images, and what is done to them before they are encoded.

    Attributes:
        cameras: inputs that are images, in the order of their encoders.
        shared: one encoder for all cameras, or one for each.
        resize: images are first scaled to this size.
        antialias: of that scaling; torchvision does so since release 0.17.
        crop: then the centre of this size is cut out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cameras: tuple[str, ...] = Field(min_length=1, max_length=16)
    shared: bool = False
    resize: Size | None = None
    antialias: bool = True
    crop: Size | None = None

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the encoder sees of images of `size`.

        Raises:
            ValueError: if the crop is larger than they are.
        """
        size = self.resize or size
        if self.crop is not None and any(c > s for c, s in zip(self.crop, size, strict=True)):
            raise ValueError(f"crop {self.crop} is larger than the image {size}")
        return self.crop or size


class VisionConfig(CamerasConfig):
    """How a ResNet makes features of camera images.

    Attributes:
        base_channels: of the first stage, which each later one doubles; 64 in the paper.
        norm: layers of the backbone; "group" has channels / 16 groups.
        pooling: "spatial_softmax" locates keypoints and maps them to `feature_dim` features;
            "average" takes the mean of each channel.
    """

    kind: Literal["resnet"] = "resnet"
    backbone: Backbone = "resnet18"
    base_channels: Annotated[int, Field(ge=16, le=1024, multiple_of=16, strict=True)] = 64
    norm: Literal["batch", "group"] = "group"
    pooling: Literal["spatial_softmax", "average"] = "spatial_softmax"
    num_keypoints: Count = 32
    feature_dim: Count = 64

    @property
    def channels(self) -> int:
        """Of the backbone's last layer."""
        return (8 if self.backbone in _SHALLOW else 32) * self.base_channels

    @property
    def width(self) -> int:
        """Features of one image."""
        return self.feature_dim if self.pooling == "spatial_softmax" else self.channels

    @property
    def label(self) -> str:
        """What encodes the images."""
        return self.backbone


class ClipSize(BaseModel):
    """Size of a transformer of CLIP, with the names of Hugging Face's configurations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int = Field(768, ge=1, le=100_000)
    num_hidden_layers: _Layers = Field(12, ge=1)
    num_attention_heads: Count = 12
    intermediate_size: Count = 3072
    hidden_act: Literal["quick_gelu", "gelu"] = "quick_gelu"
    layer_norm_eps: float = Field(1e-5, ge=1e-12, le=1)

    @model_validator(mode="after")
    def _buildable(self) -> ClipSize:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        return self


class ClipConfig(CamerasConfig):
    """How the vision tower of CLIP makes features of camera images: the state of its class token.

    Attributes:
        image_size: height and width in pixels of what it sees, after scaling and crop.
        patch_size: height and width in pixels of what becomes a token.
    """

    kind: Literal["clip"] = "clip"
    size: ClipSize = Field(default_factory=lambda: ClipSize.model_validate({}))
    image_size: Annotated[int, Field(ge=1, le=4096)] = 224
    patch_size: Count = 16

    @property
    def width(self) -> int:
        """Features of one image."""
        return self.size.hidden_size

    @property
    def label(self) -> str:
        """What encodes the images."""
        layers, patch = self.size.num_hidden_layers, self.patch_size
        return f"CLIP with {layers} layers of width {self.width}, patches of {patch} x {patch}"

    @model_validator(mode="after")
    def _whole_patches(self) -> ClipConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size is {self.image_size}; it must be a multiple of patch_size "
                f"{self.patch_size}"
            )
        patches = (self.image_size // self.patch_size) ** 2
        if patches > _MOST_PATCHES:
            raise ValueError(f"an image has {patches} patches; expected at most {_MOST_PATCHES}")
        return self

    def seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """As of any cameras; raises ValueError also unless it is `image_size`."""
        found = super().seen(size)
        if found != (self.image_size, self.image_size):
            raise ValueError(
                f"the encoder would see {found[0]} x {found[1]} pixels; it needs "
                f"{self.image_size} x {self.image_size}: set resize or crop"
            )
        return found
