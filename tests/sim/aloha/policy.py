"""A policy for the Aloha task with random weights, whose actions are near the start pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from para_policy.checkpoints.native import save_checkpoint
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.training.config import TrainConfig
from sim.aloha.env import Aloha
from tests.checkpoint import tiny_config

ROOT = Path(__file__).parents[3]


def save_aloha_checkpoint(directory: Path, reach: float = 0.1, train_timesteps: int = 8) -> Path:
    """Shapes and names of config/training/aloha_state.yaml; return its directory.

    Args:
        reach: of the actions around the start pose, radians.
    """
    shipped = TrainConfig.from_yaml(ROOT / "config" / "training" / "aloha_state.yaml").policy
    config = shipped.changed({"network": tiny_config().network.model_dump()})
    config = config.changed({"noise_scheduler": tiny_config(train_timesteps).noise_scheduler})
    torch.manual_seed(0)
    scene = Aloha()
    seen = {**scene.begin(0), "action": scene.joints()}
    normalizers = {
        name: LinearNormalizer.fit(np.stack([value - reach, value + reach]).astype(np.float32))
        for name, value in seen.items()
    }
    save_checkpoint(directory, config, build_network(config).state_dict(), normalizers)
    return directory
