"""Observations beside a checkpoint, so that `bench` and `calibrate` need no data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from para_policy.checkpoints.files import read_tensors, write_tensors
from para_policy.errors import CheckpointError
from para_policy.policies.config import PolicyConfig

OBSERVATIONS_FILE = "observations.safetensors"


def save_observations(directory: str | Path, observations: Mapping[str, np.ndarray]) -> None:
    """Write {name: (n, To, *shape)}: vectors in physical units, images as uint8."""
    tensors = {}
    for name, values in observations.items():
        array = np.asarray(values)
        kept = array if array.dtype == np.uint8 else array.astype(np.float32)
        tensors[name] = torch.from_numpy(np.ascontiguousarray(kept))
    write_tensors(Path(directory) / OBSERVATIONS_FILE, tensors)


def read_observations(directory: str | Path, config: PolicyConfig) -> dict[str, np.ndarray]:
    """Return the observations {name: (n, To, *shape)} that lie beside a checkpoint.

    Raises:
        CheckpointError: if there are none, or they do not fit the configuration.
    """
    path = Path(directory) / OBSERVATIONS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"'{path}' is missing: observations of this policy are needed; name a data set that has "
            "them (--data), or an environment to record them in (--rollout), or write some with "
            "para_policy.checkpoints.observations.save_observations"
        )
    observations = {name: value.numpy() for name, value in read_tensors(path).items()}
    expected = {name: (config.n_obs_steps, *shape) for name, shape in config.inputs.items()}
    found = {name: values.shape[1:] for name, values in observations.items()}
    if found != expected or len({len(values) for values in observations.values()}) != 1:
        raise CheckpointError(
            f"'{path}' holds {found}; the configuration says {expected}, equally many of each"
        )
    return observations


def count_observations(directory: str | Path, config: PolicyConfig) -> int:
    """Number of observations beside a checkpoint, 0 if there are none."""
    if not (Path(directory) / OBSERVATIONS_FILE).is_file():
        return 0
    return len(next(iter(read_observations(directory, config).values())))
