from __future__ import annotations

from pathlib import Path

import pytest

from para_policy import DiffusionPolicy, load_policy
from tests.checkpoint import calibrate_tiny_checkpoint, save_tiny_checkpoint

CALIBRATED = [("ddpm", 20), ("ddpm", 8), ("ddim", 8), ("dpmsolver++", 8)]


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", 20)
    for scheduler, steps in CALIBRATED:
        calibrate_tiny_checkpoint(directory, scheduler, steps)
    return directory


@pytest.fixture
def policy(tiny_directory: Path) -> DiffusionPolicy:
    """A tiny policy of 20 steps, calibrated for `CALIBRATED`."""
    return load_policy(tiny_directory)


@pytest.fixture
def bare_policy(tiny_directory: Path) -> DiffusionPolicy:
    """The same without calibrations."""
    return load_policy(tiny_directory, calibrated=False)
