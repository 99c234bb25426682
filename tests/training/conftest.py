from __future__ import annotations

from pathlib import Path

import pytest

from para_policy import load_policy
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import calibrate_tiny_checkpoint, save_tiny_checkpoint
from tests.training.demonstrations import circles, write_group


@pytest.fixture
def zarr_path(tmp_path: Path) -> Path:
    return write_group(tmp_path / "demo.zarr", *circles())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one of 20 steps, calibrated for 8 steps of DDPM and DDIM."""
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("policy") / "tiny", 20)
    for scheduler in ("ddpm", "ddim"):
        calibrate_tiny_checkpoint(directory, scheduler, 8)
    return directory


@pytest.fixture
def policy(checkpoint: Path) -> DiffusionPolicy:
    return load_policy(checkpoint)
