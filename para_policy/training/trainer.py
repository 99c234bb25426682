"""Training run: optimise, average, log, save and resume. What is trained is a `Task`.

Randomness of step k comes from (seed, k) alone, so a resumed run repeats an uninterrupted one. A run that
diverges ends before a bad number reaches the weights or a file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from para_policy.errors import InputError, NonFiniteError, ParaPolicyError
from para_policy.extras import extra
from para_policy.files import check_output_folder, write_text
from para_policy.lock import sole_writer
from para_policy.stopping import Stop, deferred, keeping
from para_policy.terminal import progress_bars
from para_policy.training.accelerator import begin_log, make_accelerator
from para_policy.training.config import differences
from para_policy.training.curves import plot_curves
from para_policy.training.records import Records
from para_policy.training.states import States
from para_policy.training.task import Task

with extra("train", "training"):
    from accelerate.utils import broadcast_object_list, set_seed

_STATE = "state"
_PATIENCE_S = 5.0
_LEAST_SCALE = 1.0
"""Of a loss in half precision. Its gradients overflow at first; those that still do at 1 are infinite."""


def run(
    task: Task,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train and return the directory of the result (`output`/checkpoint).

    A signal ends it after the step at hand, when that is saved; see `para_policy.stopping`.

    Args:
        output: receives `config.json`, `state/` (to resume), `metrics.jsonl`, `curves.png` and
            `checkpoint/`.
        resume: continue from the newest whole state in `output`/state, to more or fewer steps than
            were planned; without it an existing run is refused, not overwritten.
        device: as `make_accelerator`.
        tensorboard: write `output`/tensorboard, too.

    Raises:
        InputError: if `output` holds a run and `resume` is false, there is nothing to resume,
            another run writes there, or the device cannot be used.
        NonFiniteError: if losses, gradients or weights become NaN or infinite. What was saved before
            stays as it is.
    """
    output = Path(output)
    if resume and not States(output / _STATE).newest_first():
        raise InputError(f"nothing to resume in '{output}'; start without --resume")
    trainer = Trainer(task, output, device, tensorboard)
    # A launcher of many processes passes on the signal that the terminal has sent to all.
    patience_s = _PATIENCE_S if trainer.accelerator.num_processes > 1 else 0.0
    with trainer.sole_writer(), keeping(trainer.kept), deferred(patience_s) as stop:
        start = trainer.load() if resume else trainer.begin()
        begin_log(trainer.accelerator, start)
        stopped = trainer.train(start, stop)
        trainer.plot()
        trainer.accelerator.end_training()
        if stopped:
            stop.end(trainer.kept())
    return trainer.checkpoint


class Trainer:
    """The moving parts of one run."""

    def __init__(self, task: Task, output: Path, device: str | None, tensorboard: bool) -> None:
        set_seed(task.run.seed)
        self.task, self.output = task, output
        self.checkpoint = output / "checkpoint"
        self.states, self.records = States(output / _STATE), Records(output / "metrics.jsonl")
        self._saved: int | None = None
        self._started, self._spent = time.monotonic(), 0.0
        log = output if tensorboard else None
        self.accelerator = make_accelerator(task.run.precision, device, log)
        processes = self.accelerator.num_processes
        if task.run.batch_size % processes:
            raise InputError(
                f"batch_size is {task.run.batch_size}, which {processes} processes cannot divide among "
                f"themselves; expected a multiple of {processes}"
            )
        network = task.network()
        optimizer = task.optimizer(_trained(network))
        self.schedule = task.schedule(optimizer)
        self.network, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.ema = task.ema(_trained(self.network))
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.ema, self.schedule)

    @property
    def is_main(self) -> bool:
        """Of the processes of the run, the one that writes."""
        return bool(self.accelerator.is_main_process)

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        with ExitStack() as held:
            with self._agreed():
                if self.is_main:
                    check_output_folder(self.output)
                    held.enter_context(sole_writer(self.output, self.output / ".lock"))
            yield

    @contextmanager
    def _agreed(self) -> Iterator[None]:
        """What the main process refuses within is refused by all, which would wait for it for ever."""
        refused: list[ParaPolicyError | None] = [None]
        try:
            yield
        except ParaPolicyError as error:
            refused[0] = error
        broadcast_object_list(refused)
        if refused[0] is not None:
            raise refused[0]

    def train(self, start: int, stop: Stop) -> bool:
        """All steps from `start` on; whether a signal has ended it before."""
        run, recent = self.task.run, list[Tensor]()
        if start == run.steps:  # it may have been killed between its last state and the result
            self._export()
        with progress_bars(hidden=not self.is_main) as progress:
            bar = progress.add_task("training", total=run.steps, completed=start)
            for done in range(start + 1, run.steps + 1):
                recent.append(self.step(done - 1))
                if done % run.log_every == 0 or done == run.steps:
                    losses = self.log(done, self._over_all(torch.stack(recent)))
                    recent.clear()
                    progress.update(
                        bar, description=f"loss {losses['loss']:.4f}  ema {losses['ema_loss']:.4f}"
                    )
                stopped = self._is_to_stop(stop)
                if done % run.checkpoint_every == 0 or done == run.steps or stopped:
                    self.save(done)
                progress.advance(bar)
                if stopped:
                    return True
        return False

    def _over_all(self, losses: Tensor) -> float:
        """Mean over the steps and the processes, whose batches are of one size."""
        return float(self.accelerator.reduce(losses.mean(), "mean"))

    def step(self, step: int) -> Tensor:
        """One optimiser step; returns the detached loss of this process."""
        loss = self.task.loss(self.network, step, self.accelerator)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(_trained(self.network), 1.0)
        self._refuse("loss", float(loss.detach()), step + 1)
        scaler = self.accelerator.scaler
        if scaler is None or scaler.get_scale() <= _LEAST_SCALE:
            self._refuse("norm of the gradients", float(norm), step + 1)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(_trained(self.network))
        return loss.detach()

    def log(self, step: int, loss: float) -> dict[str, float]:
        record = {
            "step": step,
            "loss": loss,
            "ema_loss": self._evaluate(),
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            "seconds": self._seconds(),
        }
        for name, value in record.items():
            self._refuse(name, value, step)
        if self.is_main:
            self.records.add(record)
        self.accelerator.log(record, step=step)
        return record

    def save(self, step: int) -> None:
        """Keep state and result of a step, if its weights are finite."""
        averaged = torch.stack([value.abs().max() for value in self.ema.shadow_params])
        trained = torch.stack([value.detach().abs().max() for value in _trained(self.network)])
        self._refuse("largest weight", float(torch.cat([trained, averaged]).max()), step)
        try:
            if self.is_main:
                self.states.begin()
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(self.states.unfinished))
            self.accelerator.wait_for_everyone()
            if self.is_main:
                self.states.finish(step, self._seconds())
        # torch turns the errors of a full disk into RuntimeError.
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"cannot write the state of step {step} ({error}); {self.kept()}, once there is room"
            ) from error
        self._saved = step
        self._export()

    def kept(self) -> str:
        """What is left if the run ends now, for messages."""
        if self._saved is None:
            return "no step was saved"
        return f"step {self._saved} is kept in '{self.output}', --resume goes on from there"

    def plot(self) -> None:
        if self.is_main:
            found = self.records.read()
            plot_curves(found, self.output / "curves.png", self.task.evaluation_name)

    def load(self) -> int:
        path, facts = self.states.newest()
        changed = differences(self._begun_with(), self.task.config, self.task.changeable)
        if changed:
            raise InputError(
                f"'{self.output}' was begun with another configuration (see its config.json): other is "
                f"{', '.join(changed)}; resume with that one, or start anew in another --output"
            )
        if self.task.run.steps < facts.step:
            raise InputError(
                f"'{self.output}' has done {facts.step} steps, asked for {self.task.run.steps}; "
                "give as many, or more to train on"
            )
        try:
            self.accelerator.load_state(str(path))
            self.ema.to(self.accelerator.device)  # averages are read to the CPU
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise InputError(
                f"'{path}' does not fit this release ({error}); start anew in another --output"
            ) from error
        self._saved, self._spent = facts.step, facts.seconds
        if self.is_main:
            self._write_config()
            self.records.cut(facts.step)
        return facts.step

    def begin(self) -> int:
        with self._agreed():
            if self.is_main:
                if self.states.newest_first() or self.checkpoint.exists():
                    raise InputError(
                        f"'{self.output}' already holds a run; pass --resume or another --output"
                    )
                self._write_config()
                self.records.path.unlink(missing_ok=True)  # of a run that never reached a state
        return 0

    def _write_config(self) -> None:
        write_text(self._config_file, self.task.config.model_dump_json(indent=2) + "\n")

    def _begun_with(self) -> BaseModel:
        try:
            return type(self.task.config).model_validate_json(self._config_file.read_bytes())
        except (OSError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"'{self._config_file}' does not say what the run was begun with ({reason}); "
                "start anew in another --output"
            ) from error

    @property
    def _config_file(self) -> Path:
        return self.output / "config.json"

    def _is_to_stop(self, stop: Stop) -> bool:
        """Whether any process has got a signal: all end after the same step."""
        if stop.requested:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _seconds(self) -> float:
        return round(self._spent + time.monotonic() - self._started, 1)

    def _refuse(self, name: str, value: float, step: int) -> None:
        """Raise NonFiniteError if a number of step `step` (from 1) is NaN or infinite."""
        if math.isfinite(value):
            return
        good = f"good weights, of step {self._saved}, are kept in '{self.checkpoint}'"
        raise NonFiniteError(
            f"training diverged at step {step}: its {name} is {value}; "
            f"{'no step was saved' if self._saved is None else good}; lower the learning rate, or look "
            "for outliers in the data, and start anew in another --output"
        )

    def _export(self) -> None:
        if not self.is_main:
            return
        self.ema.store(_trained(self.network))
        self.ema.copy_to(_trained(self.network))
        self.task.export(self.accelerator.unwrap_model(self.network), self.checkpoint)
        self.ema.restore(_trained(self.network))

    @torch.no_grad()
    def _evaluate(self) -> float:
        self.ema.store(_trained(self.network))
        self.ema.copy_to(_trained(self.network))
        loss = self.task.evaluation_loss(self.network, self.accelerator)
        self.ema.restore(_trained(self.network))
        return loss


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
