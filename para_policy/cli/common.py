"""Common parts of several commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig


def demonstrated(config: PolicyConfig, path: Path, data: Path, count: int) -> dict[str, np.ndarray]:
    """Observations of demonstrations, read as in training: {name: (n, To, *shape)}."""
    with extra("reading demonstrations"):
        from para_policy.training.config import TrainConfig
        from para_policy.training.dataset import observation_windows
        from para_policy.training.replay_buffer import ReplayBuffer
    columns = TrainConfig.from_yaml(path).data
    return observation_windows(
        ReplayBuffer(data), columns.observations, columns.action, config, count
    )


@contextmanager
def extra(what: str, name: str = "train") -> Iterator[None]:
    """Imports of an optional extra, which the other commands must run without."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}; pip install 'para_policy[{name}]'") from error


def require_ros() -> None:
    """Raise InputError where ROS 2 cannot be imported; call before importing `para_policy.ros`."""
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ROS 2 is not available ({error}); source its setup.bash, or install the wheels: "
            "pip install -r requirements-ros.txt"
        ) from error
