"""Pretraining of the encoder of a PushT policy with a camera: `python -m sim.pretrain_encoder --help`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from para_policy.checkpoints.files import summarise, write_tensors
from para_policy.cli.common import TrainingOptions
from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import write_text
from para_policy.memory import check_memory
from para_policy.networks.config import VisionConfig
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.build import VISION
from para_policy.policies.config import PolicyConfig
from para_policy.terminal import run
from para_policy.training import trainer
from para_policy.training.accelerator import check_options
from para_policy.training.config import LENGTH, OptimisationConfig, TrainConfig
from para_policy.training.optimisation import Optimised
from para_policy.training.pretrained import IMAGES
from sim.pusht.env import BOARD_SIZE, STATE_INPUTS, PushT
from sim.pusht.random_states import random_states
from sim.tasks.task import Array

with extra("train", "training"):
    from accelerate import Accelerator

_SHOWN = ("environment_state", "agent_pos")
FEATURES = sum(STATE_INPUTS[name][0] for name in _SHOWN)
"""Eight vertices of the T and the agent, x and y: what the encoder says of a picture."""
SCALE = BOARD_SIZE / 2
"""Pixels of the board to one unit of a feature, so that features lie in [0, 2], where ReLU lets them pass."""
_HELD_OUT = 512


class PretrainConfig(BaseModel):
    """A whole pretraining.

    Attributes:
        camera: the policy's input that the encoder sees.
        image: its shape, (3, height, width).
        vision: the encoder, as in the policy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    camera: str
    image: tuple[int, int, int]
    vision: VisionConfig
    training: OptimisationConfig

    @classmethod
    def of(cls, policy: PolicyConfig, training: OptimisationConfig) -> PretrainConfig:
        """Raises InputError unless the policy has one camera, whose encoder makes `FEATURES` features."""
        vision = policy.vision
        if not isinstance(vision, VisionConfig) or len(vision.cameras) != 1:
            raise InputError(f"policy.vision is {vision}; expected a ResNet for one camera")
        if vision.width != FEATURES:
            raise InputError(
                f"policy.vision makes {vision.width} features; expected feature_dim {FEATURES}: x and y of "
                "eight vertices of the T and of the agent"
            )
        (camera,) = vision.cameras
        _, height, width = policy.inputs[camera]
        return cls(camera=camera, image=(3, height, width), vision=vision, training=training)


class SeeingNetwork(nn.Module):
    """The encoder of one camera: images (B, 3, H, W), bytes, to features (B, FEATURES)."""

    def __init__(self, vision: VisionConfig) -> None:
        super().__init__()
        self.vision = VisionEncoder(vision)
        self.vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        head = self.vision.get_submodule("encoders.0.head")
        assert isinstance(head, nn.Linear)
        nn.init.ones_(head.bias)  # the middle of the board: ReLU is dead below 0

    def forward(self, images: Tensor) -> Tensor:
        (camera,) = self.vision.config.cameras
        unit = IMAGES.to(images.device).normalize_images(images / 255)
        features: Tensor = self.vision({camera: unit})[camera]
        return features


class Pretraining(Optimised):
    """A `Task`: say from a picture where the T's vertices and the agent are.

    Every step draws new states, so that no picture is seen twice.
    """

    changeable: ClassVar = {"training": LENGTH}
    evaluation_name = f"{_HELD_OUT} held-out states, EMA weights"

    def __init__(self, config: PretrainConfig) -> None:
        self.config, self.run = config, config.training
        pictures = math.prod(config.image) * 5  # bytes, and numbers
        check_memory(f"--batch-size {self.run.batch_size}", self.run.batch_size * pictures)
        self.board = PushT({config.camera: config.image, **STATE_INPUTS})
        self.held_out = self.pictures(_HELD_OUT, -1)

    def pictures(self, count: int, *key: int) -> tuple[Tensor, Tensor]:
        """Images (n, 3, H, W), bytes, of random states, and what is seen on them (n, FEATURES), pixels.

        They depend on seed and `key` alone.
        """
        words = [self.run.seed, *(k % 2**32 for k in key)]
        states = random_states(count, np.random.default_rng(words))
        images = np.empty((count, *self.config.image), dtype=np.uint8)
        seen = np.empty((count, FEATURES), dtype=np.float32)
        for i, state in enumerate(states):
            observed = self.board.place(state)
            images[i] = observed[self.config.camera]
            seen[i] = np.concatenate([observed[name] for name in _SHOWN])
        return torch.from_numpy(images), torch.from_numpy(seen)

    def network(self) -> nn.Module:
        return SeeingNetwork(self.config.vision)

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        count = max(1, self.run.batch_size // accelerator.num_processes)
        images, seen = self.pictures(count, step, accelerator.process_index)
        torch.manual_seed(step)  # of crops
        return nn.functional.l1_loss(
            network(images.to(accelerator.device)), seen.to(accelerator.device) / SCALE
        )

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        return float((self._answers(network) - self.held_out[1]).abs().mean()) / SCALE

    def export(self, network: nn.Module, directory: Path) -> None:
        played = SeeingNetwork(self.config.vision)  # without autocast
        played.load_state_dict(network.state_dict())
        weights = played.vision.state_dict(prefix=VISION)
        directory.mkdir(parents=True, exist_ok=True)
        write_tensors(
            directory / "encoder.safetensors",
            {name: value.contiguous() for name, value in weights.items()},
        )
        found = errors(self._answers(played).numpy(), self.held_out[1].numpy())
        write_text(directory / "held_out.json", json.dumps(found, indent=2) + "\n")

    @torch.no_grad()
    def _answers(self, network: nn.Module) -> Tensor:
        """For the held-out images, pixels."""
        device = next(network.parameters()).device
        network.eval()
        parts = [network(part.to(device)).cpu() for part in self.held_out[0].split(64)]
        network.train()
        return SCALE * torch.cat(parts)


def errors(found: Array, true: Array) -> dict[str, dict[str, float]]:
    """How far answers (n, FEATURES), pixels, are from the truth: mean and 95th percentile.

    `agent_px` and `block_px` are distances, the latter of the centres of the vertices; `block_deg` is the
    angle by which the best rigid motion turns the true vertices onto those found.
    """
    (f, t) = (values[:, :-2].reshape(len(values), -1, 2) for values in (found, true))
    centres = f.mean(axis=1) - t.mean(axis=1)
    f, t = f - f.mean(axis=1, keepdims=True), t - t.mean(axis=1, keepdims=True)
    along = (f * t).sum(axis=(1, 2))
    across = (t[..., 0] * f[..., 1] - t[..., 1] * f[..., 0]).sum(axis=1)
    each = {
        "agent_px": np.linalg.norm(found[:, -2:] - true[:, -2:], axis=1),
        "block_px": np.linalg.norm(centres, axis=1),
        "block_deg": np.degrees(np.abs(np.arctan2(across, along))),
    }
    return {
        name: {"mean": float(e.mean()), "p95": float(np.percentile(e, 95))}
        for name, e in each.items()
    }


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainingOptions):
    """Train the encoder of a PushT policy to say where the T and the agent are.

    It learns from pictures of random states, drawn while it learns, as many as it takes; `para-policy train`
    with the same configuration then needs few demonstrations to learn what to do about them.
    """

    config: Path
    """Training configuration of the policy, such as config/training/pusht_image.yaml."""
    output: Path = Path("outputs/pusht_encoder")
    """Receives checkpoint/ (encoder.safetensors, held_out.json), state/ (to resume), metrics.jsonl and
    curves.png."""
    steps: int = 12_000
    """Optimiser steps."""
    batch_size: int = 64
    """Pictures of each step."""
    learning_rate: float = 1e-3
    """Of AdamW; a cosine brings it to 0."""
    precision: Annotated[str, tyro.conf.arg(metavar="{no,bf16,fp16}")] = "bf16"
    """Of the convolutions' arithmetic."""
    seed: int = 42
    """Of the states, and the first weights."""
    log_every: int = 100
    """Steps between two records of the losses."""
    checkpoint_every: int = 1000
    """Steps between two states."""

    def __call__(self) -> None:
        check_options(self.device, self.tensorboard)
        policy = TrainConfig.from_yaml(self.config).policy
        names = OptimisationConfig.model_fields.keys() & vars(self).keys()
        try:
            training = OptimisationConfig.model_validate(
                {name: getattr(self, name) for name in names}
            )
        except ValidationError as error:
            raise InputError(summarise(error)) from error
        directory = trainer.run(
            Pretraining(PretrainConfig.of(policy, training)),
            self.output,
            resume=self.resume,
            device=self.device,
            tensorboard=self.tensorboard,
        )
        found = json.loads((directory / "held_out.json").read_text())
        shown = ", ".join(f"{name} {e['mean']:.2f} ({e['p95']:.2f})" for name, e in found.items())
        print(f"errors on {_HELD_OUT} held-out states, mean (95th percentile): {shown}")
        print(f"encoder: {directory / 'encoder.safetensors'}")


def main(argv: Sequence[str] | None = None) -> int:
    return run(tyro.cli(Arguments, args=argv))


if __name__ == "__main__":
    sys.exit(main())
