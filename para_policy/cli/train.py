"""`para-policy train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from para_policy.cli.common import TrainingOptions, training_config
from para_policy.errors import InputError
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class Train(TrainingOptions):
    """Train a diffusion policy by behaviour cloning."""

    config: Path
    """Training configuration, such as config/training/pusht_state.yaml."""
    output: Path = Path("outputs/train")
    """Receives checkpoint/, state/ (to resume), metrics.jsonl and curves.png."""
    data: Path | None = None
    """Demonstrations, instead of data.path of the configuration: folder of a LeRobotDataset, its name
    on the Hugging Face Hub, or a replay buffer of the original project (zarr)."""
    encoder: Path | None = None
    """Pretrained encoder, instead of encoder.weights of the configuration: a safetensors file."""
    steps: int | None = None
    """Optimiser steps, instead of training.steps of the configuration."""
    seed: int | None = None
    """Of the first weights and all draws, instead of training.seed of the configuration."""

    def __call__(self) -> None:
        from para_policy.training import behaviour_cloning
        from para_policy.training.config import LARGEST_SEED, MOST, TrainConfig

        config = TrainConfig.from_yaml(training_config(self.config))
        if self.data is not None:
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"path": self.data})}
            )
        if self.encoder is not None:
            if config.encoder is None:
                raise InputError(
                    f"--encoder is {self.encoder}, but '{self.config}' has no section encoder; write "
                    "there whether it is trainable"
                )
            update = {"encoder": config.encoder.model_copy(update={"weights": self.encoder})}
            config = config.model_copy(update=update)
        for name, least, most in (("steps", 1, MOST), ("seed", 0, LARGEST_SEED)):
            value = getattr(self, name)
            if value is None:
                continue
            if not least <= value <= most:
                raise InputError(f"--{name} is {value}; expected from {least} to {most}")
            training = config.training.model_copy(update={name: value})
            config = config.model_copy(update={"training": training})
        checkpoint = behaviour_cloning.train(
            config,
            self.output,
            resume=self.resume,
            device=self.device,
            tensorboard=self.tensorboard,
        )
        show(f"checkpoint: {checkpoint}")
