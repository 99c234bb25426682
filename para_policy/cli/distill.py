"""`para-policy distill`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from para_policy.cli.common import ThreadOptions, TrainingOptions
from para_policy.cli.inputs import OfCheckpoint
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class Distill(ThreadOptions, TrainingOptions, OfCheckpoint):
    """Fine-tune a Picard Consistency Model: the network that begins the solve of `pcm`."""

    data: Path
    """Trajectories from `para-policy trajectories`."""
    task: str | None = None
    """What the robot is to do, in words, as for `trajectories`: for a LeRobot policy that takes a text."""
    output: Path = Path("outputs/distill")
    """Receives checkpoint/ (the PCM weights), state/ (to resume), metrics.jsonl and curves.png."""
    objective: Literal["picard", "own"] = "own"
    """Iterates to train on: those of the base model (the paper's), or the network's own."""
    rank: int = 16
    """Of the low-rank update of each layer (LoRA); 0 fine-tunes all weights."""
    stride: int = 1
    """The rounds of the fine-tuned network evaluate every so-many-th row."""
    informed: bool = False
    """The network sees the round and how far the last one has moved the states, too."""
    trajectory_loss: float = 1.0
    """Weight of the distance of the states that a sweep leaves."""
    row_loss: float = 0.0
    """Weight of the error of each row's residual by itself."""
    neighbour_loss: float = 0.0
    """Weight of the change of that error from one row to the next."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 8
    """Trajectories of each step."""
    learning_rate: float = 1e-3
    """Of Adam, at its largest: it rises for --warmup-steps and falls along a cosine; 1e-4 is the paper's
    for a full fine-tune."""
    warmup_steps: int = 50
    """Steps until the learning rate is at its largest."""
    ema_decay: float = 0.999
    """Share of the averaged weights that a step keeps."""
    log_every: int = 50
    """Steps from one loss on held-out trajectories to the next."""
    checkpoint_every: int = 200
    """Steps from one state to resume from to the next."""
    seed: int = 42
    """Of the order of trajectories and the first weights of the update."""

    def __call__(self) -> None:
        from para_policy.checkpoints import consistency
        from para_policy.checkpoints.load import load_policy
        from para_policy.checkpoints.native import checkpoint_hash
        from para_policy.inference.device import set_threads
        from para_policy.training.pcm import distill

        set_threads(self.threads)
        directory = self.directory()
        policy = load_policy(directory, task=self.task)
        keys = set(distill.DistillConfig.model_fields) & set(vars(self))
        loss = {
            "trajectory": self.trajectory_loss,
            "rows": self.row_loss,
            "neighbours": self.neighbour_loss,
        }
        config = distill.make_config({**{key: getattr(self, key) for key in keys}, "loss": loss})
        checkpoint = distill.distill(
            policy,
            checkpoint_hash(directory),
            config,
            self.output,
            resume=self.resume,
            device=self.device,
            tensorboard=self.tensorboard,
        )
        show(f"PCM weights: {checkpoint}; copy them to {consistency.folder(directory)}")
