"""Behaviour cloning of a diffusion policy (Chi et al. 2023): predict what the scheduler added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from para_policy.errors import DataError
from para_policy.formats.native import save_checkpoint
from para_policy.policies.diffusion_policy import build_network
from para_policy.policies.normalizer import MinMaxNormalizer
from para_policy.schedulers import build_scheduler
from para_policy.training import trainer
from para_policy.training.config import TrainConfig
from para_policy.training.dataset import ChunkDataset, read_features
from para_policy.training.replay_buffer import ReplayBuffer
from para_policy.training.trainer import batch_indices, generator

_EVALUATION_WINDOWS = 1024


@dataclass(frozen=True)
class TrainingData:
    """Normalised windows for training and for the evaluation curve, with their normalisers."""

    train: ChunkDataset
    evaluation: ChunkDataset
    evaluation_name: str
    normalizers: dict[str, MinMaxNormalizer]


def prepare_data(config: TrainConfig) -> TrainingData:
    """Read the demonstrations, fit the normalisers on all of them, cut windows, split episodes."""
    buffer = ReplayBuffer(config.data.path)
    features = read_features(buffer, config.data.observations, config.data.action, config.policy)
    normalizers = {name: MinMaxNormalizer.fit(values) for name, values in features.items()}
    scaled = {
        name: normalizers[name].normalize(torch.from_numpy(v)) for name, v in features.items()
    }
    tensors = {
        "observation": torch.cat([scaled[name] for name in config.policy.inputs], dim=-1),
        "action": scaled["action"],
    }
    episodes = np.random.default_rng(config.training.seed).permutation(len(buffer.episode_ends))
    held_out = round(config.data.validation_ratio * len(episodes))
    train_episodes, test_episodes = np.sort(episodes[held_out:]), np.sort(episodes[:held_out])

    def windows(chosen: np.ndarray) -> ChunkDataset:
        return ChunkDataset(tensors, buffer.episode_ends, chosen, config.policy)

    train = windows(train_episodes)
    if len(train) < config.training.batch_size:
        raise DataError(
            f"{len(train)} training windows do not fill one batch of {config.training.batch_size}; "
            "lower training.batch_size"
        )
    if held_out == 0:
        return TrainingData(train, train, "training windows, EMA weights", normalizers)
    return TrainingData(
        train, windows(test_episodes), "validation episodes, EMA weights", normalizers
    )


def train(
    config: TrainConfig, output: str | Path, *, resume: bool = False, device: str | None = None
) -> Path:
    """Train and return the directory of the finished native checkpoint; arguments as `trainer.run`.

    Raises:
        InputError: as `trainer.run`.
        DataError: if the demonstrations cannot be used.
    """
    return trainer.run(_Cloning(config), output, resume=resume, device=device)


class _Cloning:
    """Mean squared error of the prediction at uniformly drawn noise levels."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.run = config, config.training
        self.data = prepare_data(config)
        self.evaluation_name = self.data.evaluation_name
        self.scheduler = build_scheduler(config.policy.noise_scheduler)

    def network(self) -> nn.Module:
        return build_network(self.config.policy)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        t = self.run
        return torch.optim.AdamW(
            parameters, lr=t.learning_rate, betas=t.betas, weight_decay=t.weight_decay
        )

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        return get_cosine_schedule_with_warmup(optimizer, self.run.warmup_steps, self.run.steps)

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel:
        return EMAModel(parameters, use_ema_warmup=True, power=self.run.ema_power)

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        t = self.run
        chosen = batch_indices(step, len(self.data.train), t.batch_size, t.seed, accelerator)
        key = (step, accelerator.process_index)
        return self._loss(
            network, self.data.train.batch(chosen), generator(t.seed, *key), accelerator
        )

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        fixed = generator(self.run.seed, -(2**31))
        count = min(_EVALUATION_WINDOWS, len(self.data.evaluation))
        chosen = torch.randperm(len(self.data.evaluation), generator=fixed)[:count]
        return self._loss(network, self.data.evaluation.batch(chosen), fixed, accelerator).item()

    def export(self, network: nn.Module, directory: Path) -> None:
        save_checkpoint(directory, self.config.policy, network.state_dict(), self.data.normalizers)

    def _loss(
        self,
        network: nn.Module,
        batch: dict[str, Tensor],
        random: torch.Generator,
        accelerator: Accelerator,
    ) -> Tensor:
        action, device = batch["action"], accelerator.device
        noise = torch.randn(action.shape, generator=random)
        levels = self.scheduler.config.num_train_timesteps
        t = torch.randint(levels, (len(action),), generator=random)
        noisy = self.scheduler.add_noise(action, noise, t)
        target = {
            "epsilon": lambda: noise,
            "sample": lambda: action,
            "v_prediction": lambda: self.scheduler.get_velocity(action, noise, t),
        }[self.scheduler.config.prediction_type]()
        cond = batch["observation"].flatten(1).to(device)
        with accelerator.autocast():
            prediction = network(noisy.to(device), t.to(device), cond)
        return nn.functional.mse_loss(prediction.float(), target.to(device))
