"""`paradigms` is the published algorithm: same rounds, same rows, same sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import DDIMParallelScheduler, DDPMParallelScheduler
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from tests.problems import Mixture, Network, network, scheduler

Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # network output, timesteps, states -> mean


@dataclass(frozen=True)
class Published:
    sample: Tensor
    rounds: int
    evals: int


def published_loop(
    net: Network,
    step: Step,
    timesteps: Tensor,
    variance: Tensor,
    noise: Noise,
    xi_scale: Tensor,
    window: int,
    tolerance: float,
) -> Published:
    """Shih et al. 2023 as their code has it, for one sample, in the form of a cumulative sum.

    Args:
        variance: (N,) of the stochastic step that leaves each state; the finished one gets 0.
        xi_scale: (N,) noise std of each step; all 0 for an ODE.
    """
    N = len(timesteps)
    X = noise.initial.repeat(N + 1, *(1,) * (noise.initial.ndim - 1))
    Z = xi_scale.reshape(-1, *(1,) * (X.ndim - 1)) * noise.steps[0]
    inverse = 1 / torch.cat([variance, variance.new_zeros(1)]) / noise.initial[0].numel()
    begin, end, rounds, evals = 0, min(window, N), 0, 0
    p = end
    while begin < N:
        rows = slice(begin, end)
        mean = step(net(X[rows], timesteps[rows]), timesteps[rows], X[rows])
        rounds, evals = rounds + 1, evals + end - begin
        new = X[begin] + (mean - X[rows]).cumsum(dim=0) + Z[rows].cumsum(dim=0)
        change = (new - X[begin + 1 : end + 1]).flatten(1).square().sum(dim=1)
        ratio = torch.cat([change * inverse[begin + 1 : end + 1], change.new_full((1,), 1e9)])
        first_failing = int((ratio > tolerance**2).nonzero()[0])
        new_begin = begin + min(1 + first_failing, p)
        new_end = min(new_begin + p, N)
        X[begin + 1 : end + 1] = new
        X[end : new_end + 1] = X[end].clone()
        begin, end = new_begin, new_end
    return Published(X[N], rounds, evals)


@dataclass(frozen=True)
class Table:
    """The schedule written out by hand, from the cumulative alphas alone."""

    now: Tensor
    after: Tensor

    @property
    def variance(self) -> Tensor:
        return (1 - self.after) / (1 - self.now) * (1 - self.now / self.after)

    @classmethod
    def leading(cls, alpha_bar: Tensor, timesteps: Tensor) -> Table:
        now = alpha_bar.double()[timesteps]
        return cls(now, torch.cat([now[1:], torch.ones(1, dtype=torch.float64)]))

    def columns(self, x: Tensor, t: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        row = len(timesteps) - 1 - torch.searchsorted(timesteps.flip(0), t)
        shape = (-1, *(1,) * (x.ndim - 1))
        return self.now[row].reshape(shape), self.after[row].reshape(shape)


def clipped_clean(x: Tensor, eps: Tensor, now: Tensor) -> Tensor:
    return ((x - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)


def ddpm_step(table: Table, timesteps: Tensor) -> Step:
    def step(eps: Tensor, t: Tensor, x: Tensor) -> Tensor:
        now, after = table.columns(x, t, timesteps)
        alpha, clean = now / after, clipped_clean(x, eps, now)
        pull = after.sqrt() * (1 - alpha) / (1 - now)
        return pull * clean + alpha.sqrt() * (1 - after) / (1 - now) * x

    return step


def ddim_step(table: Table, timesteps: Tensor) -> Step:
    def step(eps: Tensor, t: Tensor, x: Tensor) -> Tensor:
        now, after = table.columns(x, t, timesteps)
        return after.sqrt() * clipped_clean(x, eps, now) + (1 - after).sqrt() * eps

    return step


def by_the_paper(kind: str, made: Any, net: Network, noise: Noise, **options: Any) -> Published:
    N = noise.num_steps
    made.set_timesteps(N)
    t = made.timesteps
    table = Table.leading(made.alphas_cumprod, t)
    if kind == "ddim":
        ode = torch.zeros(N, dtype=torch.float64)
        return published_loop(net, ddim_step(table, t), t, table.variance, noise, ode, **options)
    variance = table.variance.clamp(min=1e-20)
    std = variance.sqrt()
    std[-1] = 0  # the published code adds 1e-10 of noise here, the sequential sampler none
    return published_loop(net, ddpm_step(table, t), t, variance, noise, std, **options)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-2, 0.1, 0.5])
@pytest.mark.parametrize("window", [5, 10, 20, None])
@pytest.mark.parametrize(("kind", "N"), [("ddpm", 50), ("ddpm", 100), ("ddim", 20), ("ddim", 50)])
def test_rounds_evals_and_sample_are_the_published_ones(
    kind: str, N: int, window: int | None, tolerance: float
) -> None:
    made = scheduler(kind)
    net = network(Mixture(), made)
    process = Process.from_scheduler(made, N)
    for seed in range(3):
        noise = Noise.from_seeds([seed], (4, 2), N, dtype=torch.float64)
        expected = by_the_paper(kind, made, net, noise, window=window or N, tolerance=tolerance)
        sampler = samplers.get("paradigms", window=window, tolerance=tolerance)
        result = sampler(Denoiser(net), process, noise)
        assert (result.rounds.item(), result.evals.item()) == (expected.rounds, expected.evals)
        torch.testing.assert_close(result.sample[0], expected.sample, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "parallel"), [("ddpm", DDPMParallelScheduler), ("ddim", DDIMParallelScheduler)]
)
@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("N", [20, 50, 100])
def test_agrees_with_diffusers_parallel_schedulers(
    kind: str, parallel: Any, beta_schedule: str, N: int
) -> None:
    """In their default configuration: leading spacing that divides, clipping, epsilon."""
    theirs = parallel(num_train_timesteps=100, beta_schedule=beta_schedule)
    theirs.set_timesteps(N)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()  # its float32 loses 1 - alpha
    made = scheduler(kind, beta_schedule=beta_schedule)
    net = network(Mixture(), made)
    noise = Noise.from_seeds([4], (4, 2), N, dtype=torch.float64)
    variance = torch.stack([theirs._get_variance(int(t)).double() for t in theirs.timesteps])
    std = torch.zeros(N) if kind == "ddim" else variance.sqrt()
    std[-1] = 0  # theirs draws noise for the last step too, the sequential scheduler does not
    expected = published_loop(
        net,
        theirs.batch_step_no_noise,
        theirs.timesteps,
        variance,
        noise,
        std,
        window=10,
        tolerance=0.1,
    )
    sampler = samplers.get("paradigms", window=10, tolerance=0.1)
    result = sampler(Denoiser(net), Process.from_scheduler(made, N), noise)
    assert (result.rounds.item(), result.evals.item()) == (expected.rounds, expected.evals)
    torch.testing.assert_close(result.sample[0], expected.sample, rtol=0, atol=1e-10)
