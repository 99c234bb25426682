"""Options and inputs that several commands share.

A command imports the packages that do its work when it is called, so that `para-policy --help` and
every wrong option answer at once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# The same as in `inference.config` and `checkpoints.load`, which bring torch.
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
Weights = Literal["live", "ema"]

_CONFIGS = Path("config", "training")
_FORMER_CONFIGS = "configs"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How any training runs."""

    device: str | None = None
    """Where to train: cpu, cuda, cuda:1; by default every device that accelerate finds."""
    tensorboard: bool = False
    """Write losses for TensorBoard, too, into tensorboard/ of --output."""
    resume: bool = False
    """Continue the run in --output."""


def training_config(path: Path) -> Path:
    """Where a training configuration is, which may be named by its former folder `configs/`."""
    moved = _CONFIGS / path.name
    if path.exists() or path.parent.name != _FORMER_CONFIGS or not moved.exists():
        return path
    warnings.warn(f"{path} is now {moved}; it is read from there", FutureWarning, stacklevel=3)
    return moved
