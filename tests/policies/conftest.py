from __future__ import annotations

from pathlib import Path

import pytest

from para_policy import DiffusionPolicy, load_policy
from tests.fixtures_checkpoint import save_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", train_timesteps=20)


@pytest.fixture
def policy(tiny_directory: Path) -> DiffusionPolicy:
    return load_policy(tiny_directory)
