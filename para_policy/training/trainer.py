"""Training run: optimise, average, log, save and resume. What is trained is a `Task`.

Randomness of step k comes from (seed, k) alone, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from pydantic import BaseModel
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import check_output_folder
from para_policy.terminal import progress_bars
from para_policy.training.config import RunConfig
from para_policy.training.curves import plot_curves

with extra("train", "training"):
    from accelerate import Accelerator
    from accelerate.utils import set_seed


class Task(Protocol):
    """What a run trains.

    Attributes:
        config: all that the result depends on; a run is resumed with the same one only.
        evaluation_name: what `evaluation_loss` is measured on.
        run: length and records of the run.
    """

    @property
    def config(self) -> BaseModel: ...

    @property
    def evaluation_name(self) -> str: ...

    @property
    def run(self) -> RunConfig: ...

    def network(self) -> nn.Module:
        """The network to train; parameters without `requires_grad` stay as they are."""
        ...

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer: ...

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        """A learning rate scheduler of torch."""
        ...

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel: ...

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        """Loss of optimiser step `step`."""
        ...

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        """Loss on a fixed set, comparable over steps; `network` holds the averaged weights."""
        ...

    def export(self, network: nn.Module, directory: Path) -> None:
        """Write what a user loads; `network` holds the averaged weights."""
        ...


def run(task: Task, output: str | Path, *, resume: bool = False, device: str | None = None) -> Path:
    """Train and return the directory of the result (`output`/checkpoint).

    Args:
        output: receives `config.json`, `state/` (to resume), `metrics.jsonl`, `curves.png` and
            `checkpoint/`.
        resume: continue from `output`/state; without it an existing run is refused, not overwritten.
        device: "cpu" forces the CPU; otherwise `accelerate` chooses (one or many devices).

    Raises:
        InputError: if `output` holds a run and `resume` is false, or there is nothing to resume.
    """
    output = Path(output)
    if device not in (None, "cpu"):
        raise InputError(f"device is {device!r}; expected 'cpu', or None to let accelerate choose")
    trainer = Trainer(task, output, device)
    start = trainer.load() if resume else trainer.refuse_existing()
    total = task.run.steps
    with progress_bars(hidden=not trainer.accelerator.is_main_process) as progress:
        bar = progress.add_task("training", total=total, completed=start)
        recent: list[Tensor] = []
        for step in range(start, total):
            recent.append(trainer.step(step))
            done = step + 1
            if done % task.run.log_every == 0 or done == total:
                losses = trainer.log(done, torch.stack(recent).mean().item())
                recent.clear()
                progress.update(
                    bar, description=f"loss {losses['loss']:.4f}  ema {losses['ema_loss']:.4f}"
                )
            if done % task.run.checkpoint_every == 0 or done == total:
                trainer.save(done)
            progress.advance(bar)
    if trainer.accelerator.is_main_process:
        plot_curves(trainer.metrics_file, output / "curves.png", task.evaluation_name)
    return output / "checkpoint"


class Trainer:
    """The moving parts of one run."""

    def __init__(self, task: Task, output: Path, device: str | None) -> None:
        set_seed(task.run.seed)
        self.task, self.output = task, output
        self.metrics_file = output / "metrics.jsonl"
        self._started, self._spent = time.monotonic(), 0.0
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=task.run.precision)
        network = task.network()
        optimizer = task.optimizer(_trained(network))
        self.schedule = task.schedule(optimizer)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.ema = task.ema(_trained(self.network))
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.ema, self.schedule)

    def step(self, step: int) -> Tensor:
        """One optimiser step; returns the detached loss."""
        loss = self.task.loss(self.network, step, self.accelerator)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(_trained(self.network), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(_trained(self.network))
        return loss.detach()

    def log(self, step: int, loss: float) -> dict[str, float]:
        rate = float(self.schedule.get_last_lr()[0])
        record = {
            "step": step,
            "loss": loss,
            "ema_loss": self._evaluate(),
            "learning_rate": rate,
            "seconds": round(self._spent + time.monotonic() - self._started, 1),
        }
        if self.accelerator.is_main_process:
            with self.metrics_file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        return record

    def save(self, step: int) -> None:
        self.accelerator.save_state(str(self.output / "state"))
        if not self.accelerator.is_main_process:
            return
        (self.output / "state" / "step.json").write_text(json.dumps({"step": step}))
        self.ema.store(_trained(self.network))
        self.ema.copy_to(_trained(self.network))
        self.task.export(self.accelerator.unwrap_model(self.network), self.output / "checkpoint")
        self.ema.restore(_trained(self.network))

    def load(self) -> int:
        step_file = self.output / "state" / "step.json"
        if not step_file.is_file():
            raise InputError(f"nothing to resume in '{self.output}'; start without --resume")
        if self._begun_with() != self._resumed_with():
            raise InputError(
                f"'{self.output}' was begun with another configuration (see its config.json); "
                "resume with that one, or start anew in another --output"
            )
        self.accelerator.load_state(str(self.output / "state"))
        step: int = json.loads(step_file.read_text())["step"]
        lines = self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.metrics_file.write_text("".join(line + "\n" for line in kept))
        self._spent = json.loads(kept[-1])["seconds"] if kept else 0.0
        return step

    def refuse_existing(self) -> int:
        if (self.output / "state" / "step.json").exists():
            raise InputError(
                f"'{self.output}' already holds a run; pass --resume or another --output"
            )
        check_output_folder(self.output)
        (self.output / "config.json").write_text(self.task.config.model_dump_json(indent=2) + "\n")
        self.metrics_file.unlink(missing_ok=True)  # of a run that never reached a checkpoint
        return 0

    def _begun_with(self) -> Any:
        return _without_data(json.loads((self.output / "config.json").read_text()))

    def _resumed_with(self) -> Any:
        return _without_data(json.loads(self.task.config.model_dump_json()))

    @torch.no_grad()
    def _evaluate(self) -> float:
        self.ema.store(_trained(self.network))
        self.ema.copy_to(_trained(self.network))
        loss = self.task.evaluation_loss(self.network, self.accelerator)
        self.ema.restore(_trained(self.network))
        return loss


def generator(seed: int, *key: int) -> torch.Generator:
    """Random numbers that depend on `seed` and `key` alone."""
    words = np.random.SeedSequence([seed, *(k % 2**32 for k in key)]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def batch_indices(
    step: int, size: int, batch_size: int, seed: int, accelerator: Accelerator
) -> Tensor:
    """Which of `size` examples this process sees in `step`: each once in an epoch, shuffled."""
    per_device = max(1, batch_size // accelerator.num_processes)
    epoch, position = divmod(step, size // (per_device * accelerator.num_processes))
    order = torch.randperm(size, generator=generator(seed, -1 - epoch))
    first = (position * accelerator.num_processes + accelerator.process_index) * per_device
    return order[first : first + per_device]


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _without_data(config: dict[str, Any]) -> dict[str, Any]:
    """Where the data lies may change between a stop and the next start."""
    return {key: value for key, value in config.items() if key != "data"}
