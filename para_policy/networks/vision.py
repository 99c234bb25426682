"""Images to features: a ResNet for each camera, or one for all, as in Diffusion Policy; or CLIP.

Both the original project and LeRobot take the convolutional part of a torchvision ResNet. They
pool it with the spatial softmax of robomimic ("Deep Spatial Autoencoders for Visuomotor
Learning", Finn et al. 2016) or with the average of the ResNet itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.networks.clip import ClipVision
from para_policy.networks.config import Backbone, ClipConfig, Size, VisionConfig

_BLOCKS: dict[Backbone, tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
_BOTTLENECK_EXPANSION = 4

Norm = Callable[[int], nn.Module]


class VisionEncoder(nn.Module):
    """Features of the images of all cameras.

    In evaluation mode crops are cut from the centre, in training mode at random positions, one
    for each image.
    """

    def __init__(self, config: VisionConfig | ClipConfig) -> None:
        super().__init__()
        self.config = config
        count = 1 if config.shared else len(config.cameras)
        self.encoders = nn.ModuleList(_encoder(config) for _ in range(count))

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map `images` (M, 3, H, W) of each camera, normalised, to features (M, width).

        Raises:
            InputError: if a camera is missing, or its images have another shape or are smaller
                than the crop.
        """
        inputs = {name: self._prepared(name, images) for name in self.config.cameras}
        if len(self.encoders) == len(inputs):
            encoders = zip(inputs.items(), self.encoders, strict=True)
            return {name: encoder(x) for (name, x), encoder in encoders}
        by_size: dict[torch.Size, list[str]] = {}
        for name, x in inputs.items():
            by_size.setdefault(x.shape[2:], []).append(name)
        features: dict[str, Tensor] = {}
        for names in by_size.values():
            together = self.encoders[0](torch.cat([inputs[name] for name in names]))
            counts = [len(inputs[name]) for name in names]
            features |= zip(names, together.split(counts), strict=True)
        return features

    def _prepared(self, name: str, images: Mapping[str, Tensor]) -> Tensor:
        """The images of one camera as its encoder sees them."""
        x = images.get(name)
        if x is None:
            raise InputError(f"no images of camera {name!r}; got {sorted(images)}")
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(
                f"images of camera {name!r} have shape {tuple(x.shape)}; expected "
                "(images, 3, height, width)"
            )
        resize, crop = self.config.resize, self.config.crop
        if resize is not None and x.shape[2:] != resize:
            x = F.interpolate(x, resize, mode="bilinear", antialias=self.config.antialias)
        if crop is None:
            return x
        if x.shape[2] < crop[0] or x.shape[3] < crop[1]:
            raise InputError(
                f"images of camera {name!r} are {x.shape[2]} x {x.shape[3]} pixels high and wide; "
                f"they must be at least as large as the crop, {crop[0]} x {crop[1]}"
            )
        return _random_crop(x, crop) if self.training else _centre_crop(x, crop)


def _encoder(config: VisionConfig | ClipConfig) -> nn.Module:
    return ClipVision(config) if isinstance(config, ClipConfig) else ImageEncoder(config)


def _centre_crop(x: Tensor, size: Size) -> Tensor:
    # Odd margins are rounded to even halves, which is how torchvision cuts.
    top, left = (round((x.shape[2 + i] - size[i]) / 2) for i in range(2))
    return x[:, :, top : top + size[0], left : left + size[1]]


def _random_crop(x: Tensor, size: Size) -> Tensor:
    rows, columns = (
        torch.randint(x.shape[2 + i] - size[i] + 1, (len(x), 1), device=x.device)
        + torch.arange(size[i], device=x.device)
        for i in range(2)
    )
    image = torch.arange(len(x), device=x.device)[:, None, None]
    # Channels come last where indices surround a slice.
    return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """Images (M, 3, H, W) to features (M, width): convolutions, pooling, a linear layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.backbone = _resnet(config.backbone, config.norm, config.base_channels)
        if config.pooling == "spatial_softmax":
            self.pool: nn.Module = SpatialSoftmax(config.channels, config.num_keypoints)
            self.head: nn.Module = nn.Linear(2 * config.num_keypoints, config.feature_dim)
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x).to(x.dtype)
        # The eight bits of bfloat16 would place a keypoint no better than to 1/256 of the image.
        with torch.autocast(x.device.type, enabled=False):
            # An average is not negative, because the backbone ends with a ReLU: it passes unchanged.
            return F.relu(self.head(self.pool(maps)))


class SpatialSoftmax(nn.Module):
    """Where each keypoint is expected in feature maps (M, C, h, w).

    Returns (M, 2 * num_keypoints): x and y of the first keypoint, of the second and so on, from
    -1 at the left and upper to 1 at the right and lower edge.
    """

    def __init__(self, channels: int, num_keypoints: int) -> None:
        super().__init__()
        # Named as in robomimic and LeRobot.
        self.nets = nn.Conv2d(channels, num_keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] == 1:
            raise InputError(
                "the encoder makes one place of the whole image, of which spatial softmax tells nothing: "
                "give it images, or a crop, of more than 32 pixels"
            )
        attention = self.nets(x).flatten(2).softmax(dim=-1)
        grid = _position_grid(x.shape[2], x.shape[3], x.device, attention.dtype)
        return (attention @ grid).flatten(1)


@lru_cache(maxsize=32)
def _position_grid(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """x and y of every position, row by row: (height * width, 2)."""
    # A grid made in inference mode could never be used in training.
    with torch.inference_mode(False):
        y, x = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (height, width))
        return torch.cartesian_prod(y, x).flip(1).to(device, dtype)


def _resnet(kind: Backbone, norm: Literal["batch", "group"], base: int) -> nn.Sequential:
    """The convolutional part of torchvision's ResNet, with random weights, numbered like its
    children (He et al. 2015; from ResNet-50 on in version 1.5)."""
    make_norm: Norm = nn.BatchNorm2d if norm == "batch" else _group_norm
    stem = [
        nn.Conv2d(3, base, 7, stride=2, padding=3, bias=False),
        make_norm(base),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    stages: list[nn.Module] = []
    channels = base
    for stage, depth in enumerate(_BLOCKS[kind]):
        blocks: list[nn.Module] = []
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            layers = _block_layers(
                base * 2**stage, stride, bottleneck=kind not in ("resnet18", "resnet34")
            )
            blocks.append(ResidualBlock(channels, layers, make_norm))
            channels = layers[-1][0]
        stages.append(nn.Sequential(*blocks))
    backbone = nn.Sequential(*stem, *stages)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 16, channels)


def _block_layers(channels: int, stride: int, *, bottleneck: bool) -> list[tuple[int, int, int]]:
    """(channels, kernel size, stride) of the convolutions of a residual block."""
    if bottleneck:
        return [(channels, 1, 1), (channels, 3, stride), (_BOTTLENECK_EXPANSION * channels, 1, 1)]
    return [(channels, 3, stride), (channels, 3, 1)]


class ResidualBlock(nn.Module):
    """Convolutions with norms, and ReLU between them; the input is added before the last ReLU.

    Args:
        in_channels: of the input.
        layers: (channels, kernel size, stride) of each convolution.
        norm: makes the norm layer for a number of channels.
    """

    def __init__(self, in_channels: int, layers: list[tuple[int, int, int]], norm: Norm) -> None:
        super().__init__()
        self.depth = len(layers)
        total_stride, previous = 1, in_channels
        for i, (channels, kernel, stride) in enumerate(layers, start=1):
            convolution = nn.Conv2d(
                previous, channels, kernel, stride, padding=kernel // 2, bias=False
            )
            self.add_module(f"conv{i}", convolution)
            self.add_module(f"bn{i}", norm(channels))
            total_stride, previous = total_stride * stride, channels
        self.downsample: nn.Module = nn.Identity()
        if total_stride > 1 or previous != in_channels:
            shortcut = nn.Conv2d(in_channels, previous, 1, total_stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(previous))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(1, self.depth + 1):
            h = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(h))
            if i < self.depth:
                h = F.relu(h, inplace=True)
        h += self.downsample(x)
        return F.relu(h, inplace=True)
