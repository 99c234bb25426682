from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.demonstrations import circles, write_group


@pytest.fixture
def zarr_path(tmp_path: Path) -> Path:
    return write_group(tmp_path / "demo.zarr", *circles())
