"""Encoders of cameras that were trained before the policy."""

from __future__ import annotations

import torch
from torch import Tensor

from para_policy.checkpoints.checkpoint import match
from para_policy.checkpoints.files import read_tensors
from para_policy.errors import InputError
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.build import VISION, build_vision
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.terminal import progress_bars
from para_policy.training.config import EncoderConfig

IMAGES = LinearNormalizer(torch.full((3,), 2.0), torch.full((3,), -1.0))
"""Pixels from [0, 1] to [-1, 1], as in the original project."""

_TOGETHER = 64


def read_encoder(policy: PolicyConfig, encoder: EncoderConfig) -> VisionEncoder:
    """The encoders of a policy's cameras with the weights that a file holds for them.

    Raises:
        InputError: if there is no such file.
        CheckpointError: if it is damaged, or holds encoders of another configuration.
    """
    if not encoder.weights.is_file():
        raise InputError(
            f"no encoder at '{encoder.weights}'; expected a safetensors file with its weights: train it "
            "first, or give --encoder FILE"
        )
    vision = build_vision(policy)
    assert vision is not None  # TrainConfig has checked it
    shapes = {VISION + name: value.shape for name, value in vision.state_dict().items()}
    state, _ = match(
        encoder.weights,
        read_tensors(encoder.weights),
        shapes,
        ignore=lambda name: None if name.startswith(VISION) else "not of an encoder",
    )
    vision.load_state_dict({name.removeprefix(VISION): value for name, value in state.items()})
    return vision


@torch.no_grad()
def encode(vision: VisionEncoder, frames: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features (n, width) of each camera's frames (n, 3, H, W), bytes, as the finished policy sees them.

    Crops are cut from the centre, and nothing is rounded as in training with less precision.
    """
    vision.eval()
    count = len(next(iter(frames.values())))
    found: list[dict[str, Tensor]] = []
    with progress_bars() as progress:
        bar = progress.add_task("encoding frames", total=count)
        for begin in range(0, count, _TOGETHER):
            part = {name: x[begin : begin + _TOGETHER].float() / 255 for name, x in frames.items()}
            found.append(
                vision({name: IMAGES.normalize_images(unit) for name, unit in part.items()})
            )
            progress.advance(bar, min(_TOGETHER, count - begin))
    return {name: torch.cat([features[name] for features in found]) for name in frames}
