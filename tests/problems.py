"""Denoising problems with exact solutions, and networks that are hard on purpose.

Data distributions with a closed-form score give exact denoisers for any noise level, so samplers
are tested without a trained network.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.diffusion.schedulers import FLOW_ONLY, SCHEDULERS
from para_policy.samplers import Nodes, Sampler, SampleResult

Network = Callable[[Tensor, Tensor], Tensor]


class Data(Protocol):
    """A distribution whose posterior mean under Gaussian noise is known."""

    def clean(self, x: Tensor, abar: Tensor) -> Tensor:
        """E[x0 | sqrt(abar) x0 + sqrt(1 - abar) eps = x]; `abar` broadcasts against `x`."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Independent coordinates N(mean, variance). Arithmetic only: bitwise independent of its batch."""

    mean: float = 0.0
    variance: float = 1.0

    def clean(self, x: Tensor, abar: Tensor) -> Tensor:
        gain = abar.sqrt() * self.variance / (abar * self.variance + 1 - abar)
        return self.mean + gain * (x - abar.sqrt() * self.mean)


@cache
def _centres(modes: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.6 * torch.rand(modes, *shape, generator=generator, dtype=torch.float64) - 0.8


@dataclass(frozen=True)
class Mixture:
    """Equal Gaussians of std `std` centred at `modes` random points in [-0.8, 0.8]^d.

    All coordinates of a sample commit to one mode together: the map is expansive there.
    """

    modes: int = 4
    std: float = 0.1
    seed: int = 0

    def clean(self, x: Tensor, abar: Tensor) -> Tensor:
        centres = _centres(self.modes, self.seed, x.shape[1:]).to(x.dtype)
        variance = abar * self.std**2 + 1 - abar
        offset = x[:, None] - abar.sqrt()[:, None] * centres  # (M, modes, *shape)
        log_weight = -(offset**2 / (2 * variance[:, None])).flatten(2).sum(dim=2)
        weight = log_weight.softmax(dim=1).reshape(log_weight.shape + (1,) * (x.ndim - 1))
        gain = abar.sqrt() * self.std**2 / variance
        return (weight * (centres + gain[:, None] * offset)).sum(dim=1)


def network(data: Data, scheduler: Any) -> Network:
    """The exact denoiser of `data`, in the scheduler's prediction type; of a flow, its velocity."""
    if not hasattr(scheduler, "alphas_cumprod"):
        return flow_network(data, scheduler.config.num_train_timesteps)
    abars, prediction = scheduler.alphas_cumprod.double(), scheduler.config.prediction_type

    def predict(x: Tensor, t: Tensor) -> Tensor:
        abar = abars[t].to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        clean = data.clean(x, abar)
        noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        velocity = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        return {"sample": clean, "epsilon": noise, "v_prediction": velocity}[prediction]

    return predict


def flow_network(data: Data, duration: float = 1.0) -> Network:
    """The exact velocity e - x0 on x = (1 - sigma) x0 + sigma e, told the time sigma * duration."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        sigma = (t / duration).to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        # Scaled to unit variance this is a path as above.
        power = (1 - sigma) ** 2 + sigma**2
        return (x - data.clean(x / power.sqrt(), (1 - sigma) ** 2 / power)) / sigma

    return predict


# Samplers with the sequential result; `asd` has only its distribution.
SOLVERS = tuple(name for name in samplers.names() if name != "asd")


def solver(name: str, process: Process, size: int = 8, **options: Any) -> Sampler:
    """The named sampler; `chord`, `collocation` and `pcm` get the Jacobian of a network that ignores the
    state, `collocation` all steps as nodes, and `pcm` a fine-tuned network that is of no use.

    Options that the sampler does not have are left out. Where a sampler has several tolerances,
    `tolerance` sets all of them.
    """
    if name == "pcm":
        options["consistency"] = lambda share: lambda x, *_: share * x
    if name in ("chord", "collocation", "pcm"):
        options["matrices"] = process.B[:, None, None] * torch.eye(size, dtype=torch.float64)
    options["nodes"] = all_nodes(process.num_steps)
    if name == "parataa" and "tolerance" in options:
        options["relative_tolerance"] = options["tolerance"]
    known = inspect.signature(samplers.registry._PRESETS[name]).parameters
    return samplers.get(name, **{key: value for key, value in options.items() if key in known})


def all_nodes(N: int) -> Nodes:
    """No set of nodes but that of all steps is good enough."""
    error = torch.full((N,), 1e9)
    error[-1] = 0.0
    return Nodes(torch.arange(N), error, torch.ones(N))


def row_by_row(inner: Network) -> Network:
    """Evaluate rows one at a time, so that no float depends on the batch a row sits in."""

    def predict(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([inner(x[m : m + 1].clone(), t[m : m + 1]) for m in range(len(x))])

    return predict


def scheduler(kind: str, train_steps: int = 100, **options: Any) -> Any:
    """A scheduler on Diffusion Policy's cosine schedule, unless `options` say otherwise."""
    if kind in FLOW_ONLY:
        return SCHEDULERS[kind](train_steps, **options)
    if kind in ("unipc", "deis"):
        options.setdefault("solver_order", 1)
    options.setdefault("beta_schedule", "squaredcos_cap_v2")
    if kind == "dpmsolver++":
        options.setdefault("lambda_min_clipped", -5.1)
    return SCHEDULERS[kind](train_steps, **options)


@dataclass(frozen=True)
class Problem:
    """A network with its process, ready to be sampled."""

    network: Network
    process: Process

    def noise(
        self,
        batch: int = 3,
        shape: tuple[int, ...] = (4, 2),
        dtype: torch.dtype = torch.float64,
        first_seed: int = 0,
    ) -> Noise:
        seeds = range(first_seed, first_seed + batch)
        return Noise.from_seeds(seeds, shape, self.process.num_steps, dtype=dtype)

    def solve(self, sampler: Sampler, noise: Noise, **options: Any) -> SampleResult:
        return sampler(Denoiser(self.network), self.process, noise, **options)


def problem(kind: str, num_steps: int, data: Data | None = None, **options: Any) -> Problem:
    """A mixture (or `data`) sampled by `kind`; `eta` goes to the process, the rest to the scheduler.

    Heun's rule takes an odd number of steps, the one before `num_steps` where that is even.
    """
    if kind == "flow_match_heun":
        num_steps -= 1 - num_steps % 2
    eta = options.pop("eta", 0.0)
    made = scheduler(kind, **options)
    return Problem(
        network(data or Mixture(), made), Process.from_scheduler(made, num_steps, eta=eta)
    )


@dataclass(frozen=True)
class Hashed:
    """A pseudo-random number in [-gain, gain] of the last bits of x and of t: nowhere smooth."""

    seed: int = 0
    gain: float = 1.0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        mixed = x.double().contiguous().view(torch.int64) * 6364136223846793005
        mixed = mixed + self.seed * 3037000493
        mixed = mixed + t.reshape(-1, *(1,) * (x.ndim - 1)) * 1442695040888963407
        return self.gain * ((mixed >> 33) % 2001 / 1000.0 - 1.0).to(x.dtype)


@dataclass(frozen=True)
class Sawtooth:
    """Expansive by the factor `slope` between its jumps, everywhere in [-1, 1]."""

    slope: float = 37.0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.remainder(self.slope * x, 2.0) - 1.0


@dataclass(frozen=True)
class Threshold:
    """A jump from -1 to 1 and no slope at all."""

    level: float = 0.1

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x > self.level, 1.0, -1.0).to(x.dtype)


@dataclass(frozen=True)
class Rational:
    """Smooth, coupled and nonlinear, from basic arithmetic alone: bitwise independent of its batch."""

    gain: float = 1.5

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        mixed = x - 0.5 * x.flip(1) + 0.01 * t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return self.gain * mixed / (1 + mixed * mixed)


@dataclass(frozen=True)
class Linear:
    """A clean-sample network (prediction type "sample") that is a full, unsymmetric matrix.

    Every row is multiplied on its own, so that no float depends on the batch it sits in.
    """

    size: int = 8
    gain: float = 0.5
    seed: int = 0

    @property
    def matrix(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.size, self.size, generator=generator, dtype=torch.float64)
        return self.gain * drawn / self.size**0.5

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        product = self.matrix.to(x.dtype) * x.flatten(1)[:, None]  # (M, size, size)
        return product.sum(dim=2).reshape(x.shape)


@dataclass(frozen=True)
class Recorder:
    """Passes rows on to a network and remembers the timesteps of every call."""

    inner: Network
    calls: list[Tensor]

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls.append(t.clone())
        return self.inner(x, t)
