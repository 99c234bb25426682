"""Options and inputs that several commands share.

A command imports the packages that do its work when it is called, so that `para-policy --help` and
every wrong option answer at once.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from para_policy.policies.config import PolicyConfig

# The same as in `inference.config` and `checkpoints.load`, which bring torch.
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Weights = Literal["live", "ema"]

_CONFIGS = Path("config", "training")
_FORMER_CONFIGS = "configs"


def training_config(path: Path) -> Path:
    """Where a training configuration is, which may be named by its former folder `configs/`."""
    moved = _CONFIGS / path.name
    if path.exists() or path.parent.name != _FORMER_CONFIGS or not moved.exists():
        return path
    warnings.warn(f"{path} is now {moved}; it is read from there", FutureWarning, stacklevel=3)
    return moved


def demonstrated(config: PolicyConfig, path: Path, data: Path, count: int) -> dict[str, np.ndarray]:
    """Observations of demonstrations, read as in training: {name: (n, To, *shape)}."""
    from para_policy.training.config import TrainConfig
    from para_policy.training.dataset import observation_windows
    from para_policy.training.replay_buffer import ReplayBuffer

    columns = TrainConfig.from_yaml(training_config(path)).data
    return observation_windows(
        ReplayBuffer(data), columns.observations, columns.action, config, count
    )
