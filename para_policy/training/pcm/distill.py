"""Training of the Picard Consistency Model (So et al. 2025): one sweep lands on the fixed point.

With a sweep Phi over all states and the fixed point X* of the base model, the loss is

    alpha(k) || X* - Phi(X^k; theta) ||^2.

What the text at hand leaves open was derived: `objective` "picard" takes the base model's iterates
X^k with k uniform and alpha(k) = 1 / sqrt(Var(k)), Var(k) being their mean squared distance to X*.
"own" takes the iterates that the trained network itself makes, which are those it meets
when it is used, and divides each by its own distance, so that a trajectory that is nearly solved
counts as much as one that is far off. Other parts of the loss (`losses.Weights`) are divided alike.

An informed network sees the round k and the spread of the iterate, too (`samplers.draft.progress`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from pydantic import Field, ValidationError
from torch import Tensor, nn

from para_policy.checkpoints.consistency import save_consistency
from para_policy.checkpoints.files import summarise
from para_policy.diffusion.noise import Noise
from para_policy.errors import DataError, InputError
from para_policy.extras import extra
from para_policy.networks import further
from para_policy.policies.consistency import Change, PicardConsistencyModel
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.draft import PROGRESS, progress, root_mean_square
from para_policy.training import trainer
from para_policy.training.accelerator import check_options
from para_policy.training.config import LENGTH, MOST, Count, Rate, RunConfig
from para_policy.training.draws import batch_indices
from para_policy.training.pcm import low_rank
from para_policy.training.pcm.losses import NEARLY_SOLVED, Losses, Weights, mean_square
from para_policy.training.pcm.sweep import Swept, sweep
from para_policy.training.pcm.trajectories import Trajectories

with extra("train", "distilling"):
    from accelerate import Accelerator

_HELD_OUT = 64

_Sweep = Callable[[int, Tensor, Tensor], Swept]
"""Of a round k, from states X (batch, N + 1, *shape): k, by how much the round before has moved them
(batch,), and X."""


class DistillConfig(RunConfig):
    """How to train.

    Attributes:
        data: the trajectories.
        objective: "picard" (base iterates) or "own"; see above.
        rank: of the low-rank update of each layer (PCM-LoRA); 0 fine-tunes all weights.
        stride: the sweep evaluates every so-many-th row and interpolates the residuals between.
        informed: the network sees round and spread; at first it makes nothing of them.
        loss: see `losses.Weights`.
        facts: what the trajectories say about themselves; filled in by `distill`.
    """

    data: Path
    facts: dict[str, Any] = Field(default_factory=dict)
    objective: Literal["picard", "own"] = "own"
    rank: int = Field(16, ge=0, le=1024)
    stride: Count = 1
    informed: bool = False
    loss: Weights = Weights()
    steps: Count = 2000
    batch_size: Count = 8
    learning_rate: Rate = 1e-3
    warmup_steps: int = Field(50, ge=0, le=MOST)
    ema_decay: float = Field(0.999, gt=0, lt=1)
    log_every: Count = 50
    checkpoint_every: Count = 200


def make_config(values: Mapping[str, Any]) -> DistillConfig:
    """Raises InputError for a wrong or unknown value."""
    try:
        return DistillConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(summarise(error)) from error


def distill(
    policy: DiffusionPolicy,
    weights_sha256: str,
    config: DistillConfig,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train and return the directory of the PCM weights; other arguments as `trainer.run`.

    Raises:
        InputError: as `trainer.run`, or if the splitting needs a calibration that is missing.
        DataError: if the trajectories cannot be used, or were made with other weights.
    """
    check_options(device, tensorboard)
    task = _Distillation(policy, weights_sha256, config)
    return trainer.run(task, output, resume=resume, device=device, tensorboard=tensorboard)


class _Distillation:
    """A `Task`."""

    changeable: ClassVar = {"data", *LENGTH}

    def __init__(self, policy: DiffusionPolicy, weights_sha256: str, config: DistillConfig) -> None:
        self.data = Trajectories(config.data)
        self.facts = self.data.facts
        self.config = self.run = config.model_copy(update={"facts": self.facts})
        self.policy, self.sha256 = policy, weights_sha256
        problem = self.data.problem(policy, weights_sha256)
        self.process = problem.process.to("cpu", torch.float32)
        self.propagate = problem.splitting.bind(
            self.process, (policy.config.horizon, policy.config.action_dim)
        )
        self.learnt, self.held_out = self.data.split(_HELD_OUT)
        if not len(self.held_out):
            raise DataError(
                f"'{config.data}' holds {len(self.data)} trajectories; a quarter is held out, so at "
                "least 4 are needed: make more"
            )
        if len(self.learnt) < config.batch_size:
            raise DataError(
                f"{len(self.learnt)} trajectories do not fill one batch of {config.batch_size}; "
                "make more, or lower --batch-size"
            )
        self.losses = Losses(config.loss, self.process, problem.splitting)
        seen = " of observations that were learnt from" if self.data.observed < 4 else ""
        self.evaluation_name = (
            f"{len(self.held_out)} held-out trajectories{seen}, share of the squared error left after "
            f"{self.facts['rounds']} rounds, EMA weights"
        )

    def network(self) -> nn.Module:
        network = copy.deepcopy(self.policy.network)
        if self.config.informed:
            further.widen(network, PROGRESS)
        network.requires_grad_(True)
        if self.config.rank:
            low_rank.adapt(network, self.config.rank)
        return network

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        c = self.config
        return get_cosine_schedule_with_warmup(optimizer, c.warmup_steps, c.steps)

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel:
        return EMAModel(parameters, decay=self.config.ema_decay)

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        c, losses = self.config, self.losses
        drawn = batch_indices(step, len(self.learnt), c.batch_size, c.seed, accelerator)
        noise, condition, iterates, solution = self.data.batch(self.learnt[drawn])
        once = functools.partial(self._sweep, network, accelerator, noise, condition)
        if c.objective == "own":
            left = [
                losses.weighted(
                    losses.after(X, swept, solution), losses.before(X, solution) + losses.least
                )
                for X, swept in self._rounds(once, iterates[:, 0])
            ]
            return torch.stack(left).mean()
        k = step % iterates.shape[1]  # uniform, and every k alike
        X = iterates[:, k]
        moved = root_mean_square((X - iterates[:, max(k - 1, 0)])[:, 1:])
        after = losses.after(X, once(k, moved, X), solution)
        return losses.weighted(after, (self._mean_before[k] + losses.least).sqrt()).mean()

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        left = []
        for part in self.held_out.split(self.config.batch_size):
            noise, condition, iterates, solution = self.data.batch(part)
            once = functools.partial(self._sweep, network, accelerator, noise, condition)
            *_, (_, swept) = self._rounds(once, iterates[:, 0])
            before = mean_square(iterates[:, 0] - solution) + NEARLY_SOLVED**2
            left.append(mean_square(swept.X - solution) / before)
        return torch.cat(left).mean().item()

    def export(self, network: nn.Module, directory: Path) -> None:
        facts = {key: self.facts[key] for key in ("scheduler", "steps", "splitting", "rounds")}
        model = PicardConsistencyModel(
            **facts,
            stride=self.config.stride,
            changes=self._changes(network),
            informed=self.config.informed,
        )
        save_consistency(directory, model, self.sha256, self.policy.config.noise_scheduler)

    def _changes(self, network: nn.Module) -> dict[str, Change]:
        base = self.policy.network.state_dict()
        changes: dict[str, Change] = {
            name: value.detach().cpu() - base[name].cpu() if name in base else value
            for name, value in low_rank.whole(network)
        }
        for name, update in low_rank.updates(network):
            changes[name] = update.up, update.down
        return changes

    def _rounds(self, once: _Sweep, X: Tensor) -> Iterator[tuple[Tensor, Swept]]:
        """Iterates that the network makes by itself, from `X` on, and the sweep from each."""
        moved = X.new_zeros(len(X))
        for k in range(self.facts["rounds"]):
            swept = once(k, moved, X)
            yield X, swept
            after = swept.X.detach()
            moved, X = root_mean_square((after - X)[:, 1:]), after

    def _sweep(
        self,
        network: nn.Module,
        accelerator: Accelerator,
        noise: Noise,
        condition: Tensor,
        k: int,
        moved: Tensor,
        X: Tensor,
    ) -> Swept:
        """Round `k` of a solve, which the round before has `moved` (batch,) to `X`."""
        c, device = self.config, accelerator.device
        if c.informed:
            condition = torch.cat([condition, progress(k, moved)], dim=1)

        def evaluate(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            with accelerator.autocast():
                output: Tensor = network(x.to(device), t.to(device), cond.to(device))
            return output.to(X.device)

        return sweep(evaluate, self.process, self.propagate, noise, condition, X, c.stride)

    @functools.cached_property
    def _mean_before(self) -> Tensor:
        """(K, 3, 1) mean of `Losses.before` over the base model's iterates."""
        found = []
        for part in self.learnt.split(64)[:4]:
            _, _, iterates, solution = self.data.batch(part)
            found.append(
                torch.stack([self.losses.before(X, solution) for X in iterates.unbind(dim=1)])
            )
        return torch.cat(found, dim=2).mean(dim=2, keepdim=True)
