"""Checkpoints that calls are tried on: diffusion and flow matching, of several networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from para_policy import DiffusionPolicy, load_policy
from para_policy.checkpoints.native import CONFIG_FILE
from para_policy.checkpoints.observations import save_observations
from para_policy.cli.main import main
from tests.checkpoint import FLOW, save_tiny_checkpoint
from tests.checkpoints.golden import read_golden
from tests.checkpoints.test_lerobot_dit import save

KINDS = ("tiny", "flow", "dit")


def save_policy(kind: str, folder: Path) -> DiffusionPolicy:
    """Write the checkpoint `folder`/`kind` of few steps, with observations beside it.

    Beside `dit` lies `lerobot`, which lacks a task.
    """
    directory = folder / kind
    if kind == "dit":
        source = save(read_golden("dit_flow"), folder).rename(folder / "lerobot")
        assert main(["convert", str(source), str(directory), "--task", "push the block"]) == 0
    else:
        save_tiny_checkpoint(directory, train_timesteps=4)
    if kind == "flow":
        config = directory / CONFIG_FILE
        flow = {"noise_scheduler": {**FLOW, "num_train_timesteps": 4}}
        config.write_text(json.dumps(json.loads(config.read_text()) | flow))
    policy = load_policy(directory)
    save_observations(directory, observations(policy, 2))
    return policy


def observations(policy: DiffusionPolicy, batch: int) -> dict[str, np.ndarray]:
    """Numbers that any input takes, {name: (batch, To, *shape)}."""
    steps = policy.config.n_obs_steps
    generator = np.random.default_rng(0)
    return {
        name: generator.uniform(0, 1, (batch, steps, *shape))
        for name, shape in policy.config.inputs.items()
    }
