"""A tiny policy with random weights: for tests of what surrounds the network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from para_policy import load_policy
from para_policy.calibration.measure import Settings, calibrate
from para_policy.checkpoints.calibration import save_calibration
from para_policy.checkpoints.native import checkpoint_hash, save_checkpoint
from para_policy.networks.config import UnetConfig
from para_policy.policies.build import build_network
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer

TWO_LEVELS, THREE_LEVELS = (8, 16), (8, 16, 16)
"""U-Net levels: three for tests of the network itself; two take two thirds of the time."""


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 20, "shift": 2.0}
"""A noise scheduler of flow matching."""


def tiny_config(
    train_timesteps: int = 100, down_dims: tuple[int, ...] = TWO_LEVELS
) -> PolicyConfig:
    """PushT's shapes with a network of a few thousand weights."""
    return PolicyConfig(
        inputs={"environment_state": (16,), "agent_pos": (2,)},
        action_names=("agent_x", "agent_y"),
        network=UnetConfig(down_dims=down_dims, step_embed_dim=8, kernel_size=3, n_groups=4),
        noise_scheduler={
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": train_timesteps,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
    )


def save_tiny_checkpoint(
    directory: str | Path,
    train_timesteps: int = 100,
    seed: int = 0,
    down_dims: tuple[int, ...] = TWO_LEVELS,
) -> Path:
    """Write a native checkpoint and return its directory."""
    config = tiny_config(train_timesteps, down_dims)
    torch.manual_seed(seed)
    network = build_network(config)
    board = np.array([[0.0] * 16, [512.0] * 16], dtype=np.float32)
    normalizers = {
        "environment_state": LinearNormalizer.fit(board),
        "agent_pos": LinearNormalizer.fit(board[:, :2]),
        "action": LinearNormalizer.fit(board[:, :2]),
    }
    save_checkpoint(directory, config, network.state_dict(), normalizers)
    return Path(directory)


def put_in_hub_cache(directory: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a checkpoint "someone/tiny" of the Hugging Face Hub, which cannot be reached; its folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(directory, repository / "snapshots" / ("0" * 40)))


def random_observations(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Observations anywhere on the board, {name: (batch, 2, D)}."""
    generator = np.random.default_rng(seed)
    return {
        "environment_state": generator.uniform(0, 512, (batch, 2, 16)),
        "agent_pos": generator.uniform(0, 512, (batch, 2, 2)),
    }


def calibrate_tiny_checkpoint(directory: Path, scheduler: str, steps: int) -> Path:
    """Measure on a handful of samples, which takes about a second; return the file."""
    policy = load_policy(directory, calibrated=False)
    settings = Settings(jacobians=2, cases=6)
    measured = calibrate(policy.chain(scheduler, steps), random_observations(3, seed=99), settings)
    schedule = policy.config.noise_scheduler
    return save_calibration(directory, measured, checkpoint_hash(directory), schedule)


if __name__ == "__main__":
    print(save_tiny_checkpoint(sys.argv[1]))
