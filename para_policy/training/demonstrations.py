"""Demonstrations of any format that training reads."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Protocol

import numpy as np

from para_policy.training.lerobot.layout import is_lerobot
from para_policy.training.replay_buffer import ReplayBuffer


class Demonstrations(Protocol):
    """Episodes one after the other, in named arrays with one row for each step.

    Attributes:
        path: where they are, for messages.
        control_hz: steps per second; None where the format does not say.
        episode_ends: (episodes,) int64, exclusive end of each episode.
        names: of all arrays and cameras.
    """

    @property
    def path(self) -> str | Path: ...

    @property
    def control_hz(self) -> float | None: ...

    @property
    def episode_ends(self) -> np.ndarray: ...

    @property
    def names(self) -> Set[str]: ...

    def __len__(self) -> int:
        """Number of steps."""
        ...

    def array(self, name: str) -> np.ndarray:
        """Return all steps of an array (steps, ...). Raises DataError if it cannot be read."""
        ...

    def frames(self, name: str, steps: np.ndarray | None = None) -> np.ndarray:
        """Return frames of a camera (n, height, width, 3), of all steps or of those in `steps`.

        Raises DataError if they cannot be read.
        """
        ...


def open_demonstrations(path: str | Path) -> Demonstrations:
    """Open a LeRobotDataset, local or of the Hugging Face Hub, or a replay buffer.

    Raises:
        MissingPackageError: if the package that reads it is not installed.
        DataError: if it is missing or damaged.
    """
    if is_lerobot(path):
        from para_policy.training.lerobot.dataset import LeRobotDataset

        return LeRobotDataset(path)
    return ReplayBuffer(path)
