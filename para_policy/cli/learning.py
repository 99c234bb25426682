"""Commands that train: train, trajectories, distill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from para_policy.checkpoints import consistency
from para_policy.checkpoints.load import load_policy
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.cli.common import demonstrated, extra
from para_policy.errors import InputError
from para_policy.inference.device import set_threads


@dataclass(frozen=True)
class Train:
    """Train a diffusion policy by behaviour cloning."""

    config: Path
    """Training configuration, such as config/training/pusht_state.yaml."""
    output: Path = Path("outputs/train")
    """Receives checkpoint/, state/ (to resume), metrics.jsonl and curves.png."""
    data: Path | None = None
    """Demonstrations, instead of data.path of the configuration."""
    steps: int | None = None
    """Optimiser steps, instead of training.steps of the configuration."""
    device: str | None = None
    """Device "cpu" forces the CPU; by default every device that accelerate finds is used."""
    resume: bool = False
    """Continue the run in --output."""

    def __call__(self) -> None:
        with extra("training"):
            from para_policy.training import behaviour_cloning
        config = behaviour_cloning.TrainConfig.from_yaml(self.config)
        if self.data is not None:
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"path": self.data})}
            )
        if self.steps is not None:
            if self.steps < 1:
                raise InputError(f"--steps is {self.steps}; expected at least 1")
            training = config.training.model_copy(update={"steps": self.steps})
            config = config.model_copy(update={"training": training})
        checkpoint = behaviour_cloning.train(
            config, self.output, resume=self.resume, device=self.device
        )
        print(f"checkpoint: {checkpoint}")


@dataclass(frozen=True)
class MakeTrajectories:
    """Solve chunks in parallel and store the iterates: the data of `distill`. Resumes by itself."""

    checkpoint: Path
    """Checkpoint directory."""
    data: Path
    """Demonstrations to take observations from."""
    output: Path
    """Zarr group that receives the trajectories."""
    config: Path = Path("config/training/pusht_state.yaml")
    """Training configuration that says how observations are read from --data."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    splitting: str = "chord"
    """Linear part of the sweeps: identity (the paper's), x0 or chord (needs a calibration)."""
    rounds: int = 2
    """Iterates to store for each trajectory, the start included."""
    count: int = 2048
    """Trajectories."""
    device: str = "cpu"
    """Where the network runs."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        with extra("making trajectories"):
            from para_policy.training.pcm import trajectories
        settings = trajectories.Settings(
            self.scheduler, self.steps, self.splitting, self.rounds, self.count
        )
        set_threads(self.threads)
        policy = load_policy(self.checkpoint, device=self.device)
        recorded = demonstrated(policy.config, self.config, self.data, self.count)
        sha256 = checkpoint_hash(self.checkpoint)
        path = trajectories.generate(policy, recorded, settings, self.output, sha256)
        print(f"trajectories: {path}")


@dataclass(frozen=True)
class Distill:
    """Fine-tune a Picard Consistency Model: the network that begins the solve of `pcm`."""

    checkpoint: Path
    """Checkpoint directory of the base model."""
    data: Path
    """Trajectories from `para-policy trajectories`."""
    output: Path = Path("outputs/distill")
    """Receives checkpoint/ (the PCM weights), state/ (to resume), metrics.jsonl and curves.png."""
    objective: Literal["picard", "own"] = "own"
    """Iterates to train on: those of the base model (the paper's), or the network's own."""
    rank: int = 16
    """Of the low-rank update of each layer (LoRA); 0 fine-tunes all weights."""
    stride: int = 1
    """The rounds of the fine-tuned network evaluate every so-many-th row."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 8
    """Trajectories of each step."""
    learning_rate: float = 1e-3
    """Of Adam; 1e-4 is the paper's for a full fine-tune."""
    seed: int = 42
    """Of the order of trajectories and the first weights of the update."""
    device: str | None = None
    """Device "cpu" forces the CPU; by default every device that accelerate finds is used."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""
    resume: bool = False
    """Continue the run in --output."""

    def __call__(self) -> None:
        with extra("training"):
            from para_policy.training.pcm import distill
        set_threads(self.threads)
        policy = load_policy(self.checkpoint)
        keys = ("data", "objective", "rank", "stride", "steps", "batch_size", "learning_rate")
        config = distill.make_config(
            {**{key: getattr(self, key) for key in keys}, "seed": self.seed}
        )
        checkpoint = distill.distill(
            policy,
            checkpoint_hash(self.checkpoint),
            config,
            self.output,
            resume=self.resume,
            device=self.device,
        )
        print(f"PCM weights: {checkpoint}; copy them to {consistency.folder(self.checkpoint)}")
