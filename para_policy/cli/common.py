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
class ChainOptions:
    """Which denoising steps are solved, and where."""

    scheduler: str | None = None
    """ddpm, ddim, dpmsolver++, unipc or deis; flow_match_euler, flow_match_heun, dpmsolver++ or unipc for a
    policy that was trained with flow matching. By default the one it was trained with."""
    steps: int | None = None
    """Denoising steps; by default as many as the checkpoint says, which may be all training steps."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, cuda:1."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the network runs."""

    engine: str = "eager"
    """How the network runs: eager, compile, cuda-graph, openvino, onnxruntime; auto: the fastest one
    that works here."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""


@dataclass(frozen=True, kw_only=True)
class ThreadOptions:
    """How much of the CPU is used."""

    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""


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
