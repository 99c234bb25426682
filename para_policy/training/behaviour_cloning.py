"""Behaviour cloning of a diffusion policy (Chi et al. 2023): predict what the noise schedule added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from para_policy.checkpoints.files import sha256 as file_sha256
from para_policy.checkpoints.native import save_checkpoint
from para_policy.diffusion.noise_schedule import noise_schedule
from para_policy.diffusion.process import Process
from para_policy.errors import DataError
from para_policy.extras import extra
from para_policy.memory import check_memory
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.build import VISION, build_network, build_vision, state_shapes
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.training import trainer
from para_policy.training.accelerator import check_options
from para_policy.training.config import LENGTH, CloningConfig, TrainConfig
from para_policy.training.dataset import ChunkDataset, content_sha256, read_features
from para_policy.training.demonstrations import open_demonstrations
from para_policy.training.draws import batch_indices, generator, noise_levels, own_part
from para_policy.training.optimisation import Optimised
from para_policy.training.pretrained import IMAGES, encode, read_encoder

with extra("train", "training"):
    from accelerate import Accelerator


@dataclass(frozen=True)
class TrainingData:
    """Windows for training and for the evaluation curve, with the normalisers of all features.

    Vectors are normalised, frames of cameras are not: as bytes they take a quarter of the memory. What a
    frozen encoder sees in them stands in their place, (width,) for each.

    Attributes:
        sha256: of the demonstrations.
    """

    train: ChunkDataset
    evaluation: ChunkDataset
    evaluation_name: str
    normalizers: dict[str, LinearNormalizer]
    sha256: str


def prepare_data(config: TrainConfig, frozen: VisionEncoder | None = None) -> TrainingData:
    """Read the demonstrations, fit the normalisers on all of them, cut windows, split episodes.

    Args:
        frozen: encodes the frames, once.
    """
    buffer = open_demonstrations(config.data.path)
    if buffer.control_hz not in (None, config.policy.control_hz):
        raise DataError(
            f"'{buffer.path}' was recorded at {buffer.control_hz:g} Hz, policy.control_hz is "
            f"{config.policy.control_hz}; write policy.control_hz: {buffer.control_hz:g}"
        )
    features = read_features(buffer, config.data.observations, config.data.action, config.policy)
    cameras = config.policy.cameras
    sha256 = content_sha256(features, buffer.episode_ends, cameras)
    normalizers = {
        name: IMAGES if name in cameras else LinearNormalizer.fit(values)
        for name, values in features.items()
    }
    tensors = {name: torch.from_numpy(values) for name, values in features.items()}
    for name in tensors.keys() - set(cameras):
        tensors[name] = normalizers[name].normalize(tensors[name])
    if frozen is not None:
        tensors |= encode(frozen, {name: tensors[name] for name in cameras})
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
        return TrainingData(train, train, "training windows, EMA weights", normalizers, sha256)
    return TrainingData(
        train, windows(test_episodes), "validation episodes, EMA weights", normalizers, sha256
    )


def train(
    config: TrainConfig,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train and return the directory of the finished native checkpoint; arguments as `trainer.run`.

    Raises:
        InputError: as `trainer.run`, or for a network that the memory does not hold.
        DataError: if the demonstrations cannot be used.
    """
    check_options(device, tensorboard)
    weights = sum(shape.numel() for shape in state_shapes(config.policy).values())
    # Weights, their gradients, two moments of Adam, and the average.
    check_memory("training a network of this size", 5 * 4 * weights)
    return trainer.run(
        _Cloning(config), output, resume=resume, device=device, tensorboard=tensorboard
    )


class ObservedNetwork(nn.Module):
    """The noise predictor with the encoders of its cameras, which are trained together.

    Args:
        sees: otherwise it has no encoders, and takes features for images.
    """

    def __init__(self, config: PolicyConfig, *, sees: bool = True) -> None:
        super().__init__()
        self._inputs = tuple(config.inputs)
        self.network = build_network(config)
        self.vision = build_vision(config) if sees else None
        if self.vision is not None:  # convolutions are then up to twice as fast on a CPU
            self.vision.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, t: Tensor, observed: dict[str, Tensor]) -> Tensor:
        """Predict from noisy actions (B, Tp, A), levels (B,) and inputs {name: (B, To, ...)}.

        Vectors are normalised, images (B, To, 3, H, W) are bytes, or features (B, To, width).
        """
        features = {name: value.flatten(2) for name, value in observed.items()}
        if self.vision is not None:
            normalizer = IMAGES.to(x.device)
            images = {
                name: normalizer.normalize_images(observed[name].flatten(0, 1) / 255)
                for name in self.vision.config.cameras
            }
            for name, encoded in self.vision(images).items():
                features[name] = encoded.unflatten(0, observed[name].shape[:2])
        condition = torch.cat([features[name] for name in self._inputs], dim=-1).flatten(1)
        return self.network(x, t, condition)

    def weights(self) -> dict[str, Tensor]:
        """Under their names in a checkpoint."""
        encoders = {} if self.vision is None else self.vision.state_dict(prefix=VISION)
        return {**self.network.state_dict(), **encoders}


class _Cloning(Optimised):
    """Mean squared error of the prediction at levels of noise that are drawn."""

    changeable: ClassVar = {"data": {"path"}, "training": LENGTH, "encoder": {"weights"}}
    run: CloningConfig

    def __init__(self, config: TrainConfig) -> None:
        self.encoder = None
        if config.encoder is not None:
            self.encoder = read_encoder(config.policy, config.encoder)
            found = config.encoder.model_copy(
                update={"sha256": file_sha256(config.encoder.weights)}
            )
            config = config.model_copy(update={"encoder": found})
        self.frozen = None if config.encoder is None or config.encoder.trainable else self.encoder
        self.data = prepare_data(config, self.frozen)
        read = config.data.model_copy(update={"sha256": self.data.sha256})
        self.config, self.run = config.model_copy(update={"data": read}), config.training
        self._check_batches()
        self.evaluation_name = self.data.evaluation_name
        # What cannot be sampled is not worth training. All steps, the default, are too many for some.
        steps = config.policy.num_inference_steps or 1
        Process.from_scheduler(config.policy.noise_scheduler, steps)
        self.noising = noise_schedule(config.policy.noise_scheduler)

    def _check_batches(self) -> None:
        """Raise InputError for more windows at once than the memory holds, whatever the network is."""
        policy, most = self.config.policy, len(self.data.evaluation)
        if self.frozen is not None:
            seen = 4 * policy.feature_dim
        else:
            seen = sum(  # frames as bytes and as numbers, vectors as numbers
                math.prod(shape) * (5 if name in policy.cameras else 4)
                for name, shape in policy.inputs.items()
            )
        # Actions with their noise, both together, the target and the prediction.
        window = policy.n_obs_steps * seen + 5 * 4 * policy.horizon * policy.action_dim
        for name in ("batch_size", "evaluation_windows"):
            count = getattr(self.run, name)
            windows = min(count, most) if name == "evaluation_windows" else count
            check_memory(f"training.{name} {count}", windows * window)

    def network(self) -> nn.Module:
        network = ObservedNetwork(self.config.policy, sees=self.frozen is None)
        if network.vision is not None and self.encoder is not None:
            network.vision.load_state_dict(self.encoder.state_dict())
        return network

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        t = self.run
        chosen = batch_indices(step, len(self.data.train), t.batch_size, t.seed, accelerator)
        own = generator(t.seed, step, accelerator.process_index)
        torch.manual_seed(own.initial_seed())  # of crops and dropout
        random, part = generator(t.seed, step, 0), own_part(t.batch_size, accelerator)
        batch = self.data.train.batch(chosen)
        return self._loss(network, batch, random, accelerator, t.batch_size, part)

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        fixed = generator(self.run.seed, -(2**31))
        chosen = torch.randperm(len(self.data.evaluation), generator=fixed)
        batch = self.data.evaluation.batch(chosen[: self.run.evaluation_windows])
        network.eval()
        loss = self._loss(
            network, batch, fixed, accelerator, len(batch["action"]), slice(None)
        ).item()
        network.train()
        return loss

    def export(self, network: nn.Module, directory: Path) -> None:
        assert isinstance(network, ObservedNetwork)
        weights = network.weights()
        if self.frozen is not None:
            weights |= self.frozen.state_dict(prefix=VISION)
        save_checkpoint(
            directory,
            self.config.policy,
            weights,
            self.data.normalizers,
            half=self.run.stored == "float16",
        )

    def _loss(
        self,
        network: nn.Module,
        batch: dict[str, Tensor],
        random: torch.Generator,
        accelerator: Accelerator,
        count: int,
        part: slice,
    ) -> Tensor:
        """Of a batch that is `part` of one of `count` windows, whose noise is drawn as a whole."""
        action, device = batch["action"], accelerator.device
        noise = torch.randn(count, *action.shape[1:], generator=random)[part]
        level = noise_levels(self.noising, self.run.noise_levels, count, random)[part]
        noisy = self.noising.noised(action, noise, level)
        target = self.noising.target(action, noise, level)
        t = self.noising.timestep(level)
        observed = {name: batch[name].to(device) for name in self.config.policy.inputs}
        with accelerator.autocast():
            prediction = network(noisy.to(device), t.to(device), observed)
        return nn.functional.mse_loss(prediction.float(), target.to(device))
