"""A policy with a camera, images for it, and what a node says about them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from PIL import Image as Pillow
from sensor_msgs.msg import CompressedImage, Image

from para_policy.checkpoints.native import save_checkpoint
from para_policy.networks.config import VisionConfig
from para_policy.policies.build import state_shapes
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from tests.checkpoint import tiny_config
from tests.ros.graph import Graph

SIDE = 96
STEPS = 10
POSITIONS = [100.0, 200.0]


def save_policy(directory: Path, camera: str, state: str, **changes: Any) -> Path:
    """A policy with random weights that sees PushT's image and agent, by the names given."""
    described = {
        **tiny_config(train_timesteps=STEPS).model_dump(),
        "inputs": {camera: (3, SIDE, SIDE), state: (2,)},
        "vision": VisionConfig(cameras=(camera,), crop=(84, 84), num_keypoints=8, feature_dim=16),
        **changes,
    }
    config = PolicyConfig.model_validate(described)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator) / max(shape[1:].numel(), 1) ** 0.5
        for name, shape in state_shapes(config).items()
    }
    board = np.array([[0.0, 0.0], [512.0, 512.0]], dtype=np.float32)
    normalizers = {name: LinearNormalizer.fit(board) for name in (state, "action")}
    normalizers[camera] = LinearNormalizer(torch.full((3,), 2.0), torch.full((3,), -1.0))
    save_checkpoint(directory, config, weights, normalizers)
    return directory


def camera_image(height: int = SIDE, width: int = SIDE, shade: int = 0) -> np.ndarray:
    """Bands and ramps, no two parts alike, (height, width, 3)."""
    rows, columns = np.mgrid[:height, :width]
    channels = [255 * rows // height, 255 * columns // width, (rows // 8) % 2 * 200 + shade]
    return np.stack(channels, axis=-1).astype(np.uint8)


def raw(pixels: np.ndarray, **changes: Any) -> Image:
    made = Image(height=pixels.shape[0], width=pixels.shape[1], encoding="bgr8")
    made.step = 3 * pixels.shape[1]
    made.data = pixels[..., ::-1].tobytes()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def png(pixels: np.ndarray) -> CompressedImage:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return CompressedImage(format="rgb8; png compressed", data=buffer.getvalue())


def wait_for_status(graph: Graph, said: list[DiagnosticArray], level: bytes, text: str) -> None:
    graph.wait(
        lambda: any(
            status.level == level and text in status.message
            for array in said
            for status in array.status
        )
    )
