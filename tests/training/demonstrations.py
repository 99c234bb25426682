"""Synthetic demonstrations in the original project's layout, and where the real ones may be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import zarr

REPOSITORY = Path(__file__).parents[2]
Arrays = dict[str, np.ndarray]


def circles(lengths: tuple[int, ...] = (30, 25, 40)) -> tuple[Arrays, np.ndarray]:
    """An agent that circles the board; the action is where it goes next."""
    steps = np.concatenate([np.arange(length) + 5 * i for i, length in enumerate(lengths)])
    angle = 0.2 * steps[:, None]
    position = np.concatenate([256 + 200 * np.cos(angle), 256 + 200 * np.sin(angle)], axis=1)
    target = np.concatenate(
        [256 + 200 * np.cos(angle + 0.2), 256 + 200 * np.sin(angle + 0.2)], axis=1
    )
    state = np.concatenate([position, np.full((len(steps), 2), 256.0), angle % 6.28], axis=1)
    arrays = {"state": state.astype(np.float32), "action": target.astype(np.float32)}
    return arrays, np.cumsum(lengths)


def write_group(
    path: Path, arrays: Arrays, episode_ends: np.ndarray, zarr_format: Literal[2, 3] = 2
) -> Path:
    """A zarr group, v2 as a rule, chunked so that one file can be damaged."""
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    data, meta = group.create_group("data"), group.create_group("meta")
    for name, values in arrays.items():
        array = data.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(16, *values.shape[1:])
        )
        array[:] = values
    ends = np.asarray(episode_ends)
    meta.create_array("episode_ends", shape=ends.shape, dtype=ends.dtype)[:] = ends
    return path


def real_demonstrations() -> Path:
    """The published PushT replay buffer; the test is skipped where it is absent."""
    path = os.environ.get("PARA_POLICY_PUSHT")
    if path is None:
        pytest.skip("PARA_POLICY_PUSHT does not point to pusht_cchi_v7_replay.zarr")
    return Path(path)
