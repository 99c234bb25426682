"""Behaviour cloning of a diffusion policy (Chi et al. 2023): predict what the scheduler added.

Randomness of step k comes from (seed, k) alone, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from para_policy.command_line import progress_bars
from para_policy.errors import DataError, InputError
from para_policy.formats.native import save_checkpoint
from para_policy.policies.diffusion_policy import build_network
from para_policy.policies.normalizer import MinMaxNormalizer
from para_policy.schedulers import build_scheduler
from para_policy.training.config import TrainConfig
from para_policy.training.curves import plot_curves
from para_policy.training.dataset import ChunkDataset, read_features
from para_policy.training.replay_buffer import ReplayBuffer

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
    """Train and return the directory of the finished native checkpoint (`output`/checkpoint).

    Args:
        output: receives `state/` (to resume), `metrics.jsonl`, `curves.png` and `checkpoint/`.
        resume: continue from `output`/state; without it an existing run is refused, not overwritten.
        device: "cpu" forces the CPU; otherwise `accelerate` chooses (one or many devices).

    Raises:
        InputError: if `output` holds a run and `resume` is false, or there is nothing to resume.
        DataError: if the demonstrations cannot be used.
    """
    output = Path(output)
    if device not in (None, "cpu"):
        raise InputError(f"device is {device!r}; expected 'cpu', or None to let accelerate choose")
    run = _Run(config, output, device)
    start = run.load() if resume else run.refuse_existing()
    total = config.training.steps
    with progress_bars(hidden=not run.accelerator.is_main_process) as progress:
        bar = progress.add_task("training", total=total, completed=start)
        recent: list[Tensor] = []
        for step in range(start, total):
            recent.append(run.step(step))
            done = step + 1
            if done % config.training.log_every == 0 or done == total:
                losses = run.log(done, torch.stack(recent).mean().item())
                recent.clear()
                progress.update(
                    bar, description=f"loss {losses['loss']:.4f}  ema {losses['ema_loss']:.4f}"
                )
            if done % config.training.checkpoint_every == 0 or done == total:
                run.save(done)
            progress.advance(bar)
    if run.accelerator.is_main_process:
        plot_curves(run.metrics_file, output / "curves.png", run.data.evaluation_name)
    return output / "checkpoint"


class _Run:
    """The moving parts of one training run."""

    def __init__(self, config: TrainConfig, output: Path, device: str | None) -> None:
        set_seed(config.training.seed)
        self.config, self.output = config, output
        self.metrics_file = output / "metrics.jsonl"
        self.data = prepare_data(config)
        self.accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision=config.training.precision
        )
        t = config.training
        network = build_network(config.policy)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=t.learning_rate, betas=t.betas, weight_decay=t.weight_decay
        )
        self.schedule = get_cosine_schedule_with_warmup(optimizer, t.warmup_steps, t.steps)
        self.scheduler = build_scheduler(config.policy.noise_scheduler)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.ema = EMAModel(self.network.parameters(), use_ema_warmup=True, power=t.ema_power)
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.ema, self.schedule)

    def step(self, step: int) -> Tensor:
        """One optimiser step; returns the detached loss."""
        per_device = max(1, self.config.training.batch_size // self.accelerator.num_processes)
        batch = self.data.train.batch(self._batch_indices(step, per_device))
        loss = self._loss(
            batch, _generator(self.config.training.seed, step, self.accelerator.process_index)
        )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        return loss.detach()

    def log(self, step: int, loss: float) -> dict[str, float]:
        rate = float(self.schedule.get_last_lr()[0])
        record = {"step": step, "loss": loss, "ema_loss": self._evaluate(), "learning_rate": rate}
        if self.accelerator.is_main_process:
            with self.metrics_file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        return record

    def save(self, step: int) -> None:
        self.accelerator.save_state(str(self.output / "state"))
        if not self.accelerator.is_main_process:
            return
        (self.output / "state" / "step.json").write_text(json.dumps({"step": step}))
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        state = self.accelerator.unwrap_model(self.network).state_dict()
        save_checkpoint(
            self.output / "checkpoint", self.config.policy, state, self.data.normalizers
        )
        self.ema.restore(self.network.parameters())

    def load(self) -> int:
        step_file = self.output / "state" / "step.json"
        if not step_file.is_file():
            raise InputError(f"nothing to resume in '{self.output}'; start without --resume")
        begun_with = TrainConfig.model_validate_json((self.output / "config.json").read_text())
        if (begun_with.policy, begun_with.training) != (self.config.policy, self.config.training):
            raise InputError(
                f"'{self.output}' was begun with another configuration (see its config.json); "
                "resume with that one, or start anew in another --output"
            )
        self.accelerator.load_state(str(self.output / "state"))
        step: int = json.loads(step_file.read_text())["step"]
        lines = self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.metrics_file.write_text("".join(line + "\n" for line in kept))
        return step

    def refuse_existing(self) -> int:
        if (self.output / "state" / "step.json").exists():
            raise InputError(
                f"'{self.output}' already holds a run; pass --resume or another --output"
            )
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "config.json").write_text(self.config.model_dump_json(indent=2) + "\n")
        self.metrics_file.unlink(missing_ok=True)  # of a run that never reached a checkpoint
        return 0

    def _batch_indices(self, step: int, per_device: int) -> Tensor:
        windows, batch_size = len(self.data.train), per_device * self.accelerator.num_processes
        epoch, position = divmod(step, windows // batch_size)
        order = torch.randperm(windows, generator=_generator(self.config.training.seed, -1 - epoch))
        first = position * batch_size + self.accelerator.process_index * per_device
        return order[first : first + per_device]

    def _loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Mean squared error of the prediction at a uniformly drawn noise level."""
        action = batch["action"]
        noise = torch.randn(action.shape, generator=generator)
        t = torch.randint(
            self.scheduler.config.num_train_timesteps, (len(action),), generator=generator
        )
        noisy = self.scheduler.add_noise(action, noise, t)
        target = {
            "epsilon": lambda: noise,
            "sample": lambda: action,
            "v_prediction": lambda: self.scheduler.get_velocity(action, noise, t),
        }[self.scheduler.config.prediction_type]()
        device = self.accelerator.device
        cond = batch["observation"].flatten(1).to(device)
        with self.accelerator.autocast():
            prediction = self.network(noisy.to(device), t.to(device), cond)
        return nn.functional.mse_loss(prediction.float(), target.to(device))

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Loss of the EMA weights on fixed windows, noise and noise levels: comparable over steps."""
        generator = _generator(self.config.training.seed, -(2**31))
        count = min(_EVALUATION_WINDOWS, len(self.data.evaluation))
        indices = torch.randperm(len(self.data.evaluation), generator=generator)[:count]
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        loss = self._loss(self.data.evaluation.batch(indices), generator).item()
        self.ema.restore(self.network.parameters())
        return loss


def _generator(seed: int, *key: int) -> torch.Generator:
    words = np.random.SeedSequence([seed, *(k % 2**32 for k in key)]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
