"""A tiny policy with random weights: for tests of what surrounds the network."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from para_policy.formats.native import save_checkpoint
from para_policy.policies.config import PolicyConfig, UnetConfig
from para_policy.policies.diffusion_policy import build_network
from para_policy.policies.normalizer import MinMaxNormalizer


def tiny_config(train_timesteps: int = 100) -> PolicyConfig:
    """PushT's shapes with a network of a few thousand weights."""
    return PolicyConfig(
        inputs={"environment_state": (16,), "agent_pos": (2,)},
        action_names=("agent_x", "agent_y"),
        network=UnetConfig(down_dims=(8, 16, 16), step_embed_dim=8, kernel_size=3, n_groups=4),
        noise_scheduler={
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": train_timesteps,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
    )


def save_tiny_checkpoint(directory: str | Path, train_timesteps: int = 100, seed: int = 0) -> Path:
    """Write a native checkpoint and return its directory."""
    config = tiny_config(train_timesteps)
    torch.manual_seed(seed)
    network = build_network(config)
    board = np.array([[0.0] * 16, [512.0] * 16], dtype=np.float32)
    normalizers = {
        "environment_state": MinMaxNormalizer.fit(board),
        "agent_pos": MinMaxNormalizer.fit(board[:, :2]),
        "action": MinMaxNormalizer.fit(board[:, :2]),
    }
    save_checkpoint(directory, config, network.state_dict(), normalizers)
    return Path(directory)


if __name__ == "__main__":
    print(save_tiny_checkpoint(sys.argv[1]))
