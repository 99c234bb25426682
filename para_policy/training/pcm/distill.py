"""Training of the Picard Consistency Model (So et al. 2025): one sweep lands on the fixed point.

With a sweep Phi over all states and the fixed point X* of the base model, the loss is

    alpha(k) || X* - Phi(X^k; theta) ||^2.

What the text at hand leaves open was derived: `objective` "picard" takes the base model's iterates
X^k with k uniform and alpha(k) = 1 / sqrt(Var(k)), Var(k) being their mean squared distance to X*.
"own" takes the iterates that the trained network itself makes, which are those it meets
when it is used, and divides each by its own distance, so that a trajectory that is nearly solved
counts as much as one that is far off.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from pydantic import Field, ValidationError
from torch import Tensor, nn

from para_policy.checkpoints.consistency import save_consistency
from para_policy.checkpoints.files import summarise
from para_policy.diffusion.denoiser import Network
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import DataError, InputError
from para_policy.extras import extra
from para_policy.policies.consistency import Change, PicardConsistencyModel
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import Propagate
from para_policy.samplers.window import evaluated, interpolate
from para_policy.training import trainer
from para_policy.training.accelerator import check_options
from para_policy.training.config import LENGTH, MOST, Count, Rate, RunConfig
from para_policy.training.draws import batch_indices
from para_policy.training.pcm import low_rank
from para_policy.training.pcm.trajectories import Problem, Trajectories

with extra("train", "distilling"):
    from accelerate import Accelerator

_HELD_OUT = 64
_NEARLY_SOLVED = 0.02
"""Distances below this, normalised action units, are not worth the network's capacity."""


class DistillConfig(RunConfig):
    """How to train.

    Attributes:
        data: the trajectories.
        objective: "picard" (base iterates) or "own"; see above.
        rank: of the low-rank update of each layer (PCM-LoRA); 0 fine-tunes all weights.
        stride: the sweep evaluates every so-many-th row and interpolates the residuals between.
        facts: what the trajectories say about themselves; filled in by `distill`.
    """

    data: Path
    facts: dict[str, Any] = Field(default_factory=dict)
    objective: Literal["picard", "own"] = "own"
    rank: int = Field(16, ge=0, le=1024)
    stride: Count = 1
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


def sweep(
    network: Network,
    process: Process,
    propagate: Propagate,
    noise: Noise,
    condition: Tensor,
    X: Tensor,
    stride: int,
) -> Tensor:
    """Phi(X; network): one differentiable sweep over all rows, as a round of `pcm` does it.

    Args:
        propagate: of the splitting, bound to `process`.
        X: (batch, N + 1, *shape).
        stride: see `DistillConfig`.
    """
    batch, N = len(X), process.num_steps
    rows = torch.arange(N, device=X.device).expand(batch, N)
    seen = evaluated(rows, torch.ones_like(rows, dtype=torch.bool), 0, stride, N)
    s = rows[0, seen[0]]
    steps = s.repeat(batch)
    x = X[:, s].flatten(0, 1)
    output = network(x, process.timesteps[steps], condition.repeat_interleave(len(s), dim=0))
    x0 = process.predict_clean(x, output.float(), steps)
    mean = process.mean(x, x0, x0, steps)
    target = mean + process.noise(noise.steps[:, s].flatten(0, 1), steps)
    found = target.reshape(batch, len(s), *X.shape[2:]) - X[:, s + 1]
    residual = torch.zeros_like(X[:, 1:]).index_copy(1, s, found)
    if stride > 1:
        residual = interpolate(residual, seen, rows, process.clean_weight)
    change = residual + propagate(residual, rows)
    return torch.cat([X[:, :1], X[:, 1:] + change], dim=1)


class _Distillation:
    """A `Task`."""

    changeable: ClassVar = {"data", *LENGTH}

    def __init__(self, policy: DiffusionPolicy, weights_sha256: str, config: DistillConfig) -> None:
        self.data = Trajectories(config.data)
        self.facts = self.data.facts
        self.config = self.run = config.model_copy(update={"facts": self.facts})
        self.policy, self.sha256 = policy, weights_sha256
        self._check("weights_sha256", weights_sha256)
        self._check("noise_scheduler", policy.config.noise_scheduler)
        problem = Problem.of(
            policy, self.facts["scheduler"], self.facts["steps"], self.facts["splitting"]
        )
        self._check("calibration", problem.digest)
        self.process = problem.process.to("cpu", torch.float32)
        self.propagate = problem.splitting.bind(
            self.process, (policy.config.horizon, policy.config.action_dim)
        )
        held_out = min(_HELD_OUT, len(self.data) // 4)
        self.size = len(self.data) - held_out
        if not held_out:
            raise DataError(
                f"'{config.data}' holds {len(self.data)} trajectories; a quarter is held out, so at "
                "least 4 are needed: make more"
            )
        if self.size < config.batch_size:
            raise DataError(
                f"{self.size} trajectories do not fill one batch of {config.batch_size}; "
                "make more, or lower --batch-size"
            )
        self.held_out = torch.arange(self.size, len(self.data))
        self.evaluation_name = (
            f"{held_out} held-out trajectories, share of the squared error left after "
            f"{self.facts['rounds']} rounds, EMA weights"
        )

    def _check(self, what: str, expected: Any) -> None:
        if self.facts[what] != expected:
            raise DataError(
                f"'{self.config.data}' was made with other {what.removesuffix('_sha256')} "
                f"({self.facts[what]}, here {expected}); run para-policy trajectories again"
            )

    def network(self) -> nn.Module:
        network = copy.deepcopy(self.policy.network)
        if self.config.rank:
            low_rank.adapt(network, self.config.rank)
        else:
            network.requires_grad_(True)
        return network

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        c = self.config
        return get_cosine_schedule_with_warmup(optimizer, c.warmup_steps, c.steps)

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel:
        return EMAModel(parameters, decay=self.config.ema_decay)

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        c = self.config
        chosen = batch_indices(step, self.size, c.batch_size, c.seed, accelerator)
        noise, condition, iterates, solution = self.data.batch(chosen)
        if c.objective == "own":
            return torch.stack(
                self._own(network, noise, condition, iterates[:, 0], solution, accelerator)
            ).mean()
        k = step % iterates.shape[1]  # uniform, and every k alike
        after = self._sweep(network, noise, condition, iterates[:, k], accelerator)
        return (
            _distance(after, solution).mean() / (self._mean_distance[k] + _NEARLY_SOLVED**2).sqrt()
        )

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        left = []
        for part in self.held_out.split(self.config.batch_size):
            noise, condition, iterates, solution = self.data.batch(part)
            X = iterates[:, 0]
            for _ in range(iterates.shape[1]):
                X = self._sweep(network, noise, condition, X, accelerator)
            before = _distance(iterates[:, 0], solution) + _NEARLY_SOLVED**2
            left.append(_distance(X, solution) / before)
        return torch.cat(left).mean().item()

    def export(self, network: nn.Module, directory: Path) -> None:
        facts = {key: self.facts[key] for key in ("scheduler", "steps", "splitting", "rounds")}
        model = PicardConsistencyModel(
            **facts, stride=self.config.stride, changes=self._changes(network)
        )
        save_consistency(directory, model, self.sha256, self.policy.config.noise_scheduler)

    def _changes(self, network: nn.Module) -> dict[str, Change]:
        if self.config.rank:
            return {name: (update.up, update.down) for name, update in low_rank.updates(network)}
        base = self.policy.network.state_dict()
        return {
            name: value.detach().cpu() - base[name].cpu()
            for name, value in network.named_parameters()
        }

    def _own(
        self,
        network: nn.Module,
        noise: Noise,
        condition: Tensor,
        X: Tensor,
        solution: Tensor,
        accelerator: Accelerator,
    ) -> list[Tensor]:
        """Share of the squared error that each round leaves, on the network's own iterates."""
        losses = []
        for _ in range(self.facts["rounds"]):
            after = self._sweep(network, noise, condition, X, accelerator)
            before = _distance(X, solution) + _NEARLY_SOLVED**2
            losses.append((_distance(after, solution) / before).mean())
            X = after.detach()
        return losses

    def _sweep(
        self,
        network: nn.Module,
        noise: Noise,
        condition: Tensor,
        X: Tensor,
        accelerator: Accelerator,
    ) -> Tensor:
        device = accelerator.device

        def evaluate(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            with accelerator.autocast():
                output: Tensor = network(x.to(device), t.to(device), cond.to(device))
            return output.to(X.device)

        return sweep(
            evaluate, self.process, self.propagate, noise, condition, X, self.config.stride
        )

    @functools.cached_property
    def _mean_distance(self) -> Tensor:
        """(K,) mean squared distance of the base model's iterates to the fixed point."""
        found = []
        for part in torch.arange(self.size).split(64)[:4]:
            _, _, iterates, solution = self.data.batch(part)
            found.append(torch.stack([_distance(X, solution) for X in iterates.unbind(dim=1)]))
        return torch.cat(found, dim=1).mean(dim=1)


def _distance(X: Tensor, solution: Tensor) -> Tensor:
    """(batch,) mean squared distance of trajectories."""
    return (X - solution).square().flatten(1).mean(dim=1)
