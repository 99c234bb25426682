"""Samplers against closed forms: the process does what the papers say, whatever diffusers does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.samplers import Sampler
from tests.problems import Gaussian, network, problem, scheduler

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SAMPLERS: dict[str, Sampler] = {
    "sequential": samplers.get("sequential"),
    "paradigms": samplers.get("paradigms", tolerance=0.0),
}
N = 16


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    return SAMPLERS[request.param]


def alpha_bars(made: Any, process: Process) -> Tensor:
    """(N + 1,) noise level of every state; the last state is clean."""
    abar = made.alphas_cumprod.double()[process.timesteps]
    return torch.cat([abar, torch.ones(1, dtype=torch.float64)])


def solve_gaussian(
    sampler: Sampler, made: Any, data: Gaussian, noise: Noise, **options: Any
) -> Tensor:
    process = Process.from_scheduler(made, noise.num_steps, **options)
    return sampler(Denoiser(network(data, made)), process, noise).trajectory


def test_ddim_rotates_standard_normal_data(sampler: Sampler) -> None:
    """With abar = cos(theta)^2 and N(0, 1) data a step multiplies by the cosine of its angle."""
    made = scheduler("ddim", clip_sample=False)
    noise = Noise.from_seeds([0, 1], (4, 2), N, dtype=torch.float64)
    trajectory = solve_gaussian(sampler, made, Gaussian(), noise)
    theta = alpha_bars(made, Process.from_scheduler(made, N)).sqrt().acos()
    gain = torch.cat([torch.ones(1), theta.diff().cos().cumprod(0)]).reshape(1, N + 1, 1, 1)
    torch.testing.assert_close(trajectory, gain * noise.initial[:, None], rtol=0, atol=1e-12)


def unit_noise(num_steps: int) -> Noise:
    """Sample k has a one in the k-th source of randomness (X_0, xi_0, xi_1 ...), else zeros."""
    sources = torch.eye(num_steps + 1, dtype=torch.float64)[..., None, None]
    return Noise(initial=sources[:, 0], steps=sources[:, 1:])


@pytest.mark.parametrize(
    ("kind", "options", "process_options"),
    [
        ("ddpm", {"variance_type": "fixed_large"}, {}),
        ("ddim", {}, {"eta": 1.0}),
        ("ddim", {}, {"eta": 0.4}),
    ],
)
def test_the_marginal_variance_follows_the_noise_levels(
    sampler: Sampler, kind: str, options: dict[str, Any], process_options: dict[str, Any]
) -> None:
    """A linear denoiser makes a linear map: its squared response to unit noises is the variance.

    N(0, 1) data stays N(0, 1) at every noise level. DDPM with fixed_large variance keeps that
    exactly; DDIM has variance (angle cosine)^2 + the variance that eta adds and takes away.
    """
    made = scheduler(kind, clip_sample=False, **options)
    noise = unit_noise(N)
    variance = solve_gaussian(sampler, made, Gaussian(), noise, **process_options).square()
    variance = variance.sum(dim=0).flatten()
    abar = alpha_bars(made, Process.from_scheduler(made, N))
    if kind == "ddpm":
        expected = torch.ones(N + 1, dtype=torch.float64)
        expected[-1] = abar[-2]  # the last step adds no noise: beta is missing
    else:
        expected = ddim_variance(abar, process_options["eta"])
    torch.testing.assert_close(variance, expected, rtol=0, atol=1e-12)


def ddim_variance(abar: Tensor, eta: float) -> Tensor:
    """Song et al. 2021, eqs. 12 and 16, for E[x0 | x] = sqrt(abar) x, E[eps | x] = sqrt(1 - abar) x."""
    variance = [torch.ones((), dtype=torch.float64)]
    for now, after in pairwise(abar):
        added = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        gain = (after * now).sqrt() + ((1 - after - added) * (1 - now)).sqrt()
        variance.append(gain**2 * variance[-1] + added)
    return torch.stack(variance)


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_the_sample_of_a_point_mass_is_the_point(sampler: Sampler, kind: str) -> None:
    made = scheduler(kind)
    noise = Noise.from_seeds([0, 1], (4, 2), N, dtype=torch.float64)
    trajectory = solve_gaussian(sampler, made, Gaussian(mean=0.3, variance=1e-14), noise)
    assert (trajectory[:, -1] - 0.3).abs().max() < 1e-6


def flow_error(sampler: Sampler, num_steps: int, **options: Any) -> float:
    """Distance from the exact solution of the probability flow, x / sqrt(variance) = const."""
    data = Gaussian(variance=0.09)
    made = scheduler(
        "dpmsolver++", final_sigmas_type="sigma_min", lower_order_final=False, **options
    )
    made.set_timesteps(num_steps)
    # Equal steps of log SNR, the solver's own time; one "training step" for each of them.
    log_ratio = torch.linspace(3.0, -3.0, num_steps + 1, dtype=torch.float64)
    made.sigmas, made.timesteps = log_ratio.exp(), torch.arange(num_steps)
    made.alphas_cumprod = 1 / (1 + made.sigmas**2)
    noise = Noise.from_seeds([0], (4, 2), num_steps, dtype=torch.float64)
    result = sampler(Denoiser(network(data, made)), Process.from_scheduler(made), noise)
    spread = (made.alphas_cumprod * data.variance + 1 - made.alphas_cumprod).sqrt()
    return float((result.sample - noise.initial * spread[-1] / spread[0]).abs().max())


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"solver_order": 1}, 1),
        ({"solver_type": "midpoint"}, 2),
        ({"solver_type": "heun"}, 2),
    ],
    ids=["first", "midpoint", "heun"],
)
def test_dpmsolver_has_its_order_of_accuracy(
    sampler: Sampler, options: dict[str, Any], order: int
) -> None:
    coarse, fine = (flow_error(sampler, steps, **options) for steps in (40, 80))
    assert 0.75 * 2**order < coarse / fine < 1.5 * 2**order


def test_first_order_dpmsolver_is_ddim(sampler: Sampler) -> None:
    made = scheduler("dpmsolver++", solver_order=1)
    data = Gaussian(mean=0.2, variance=0.04)
    noise = Noise.from_seeds([0], (4, 2), N, dtype=torch.float64)
    trajectory = solve_gaussian(sampler, made, data, noise)
    expected = noise.initial
    abar = alpha_bars(made, Process.from_scheduler(made, N))
    for now, after in pairwise(abar):
        clean = data.clean(expected, now)
        eps = (expected - now.sqrt() * clean) / (1 - now).sqrt()
        expected = after.sqrt() * clean + (1 - after).sqrt() * eps
    # the solver keeps its noise levels in float32
    torch.testing.assert_close(trajectory[:, -1], expected, rtol=0, atol=1e-5)


def test_parallel_samples_of_a_mixture_land_on_its_modes() -> None:
    solved = problem("ddim", N)
    result = solved.solve(samplers.get("paradigms", tolerance=1e-3), solved.noise(batch=32))
    generator = torch.Generator().manual_seed(0)
    centres = 1.6 * torch.rand(4, 4, 2, generator=generator, dtype=torch.float64) - 0.8
    distance = (result.sample[:, None] - centres).square().mean(dim=(2, 3)).sqrt()
    assert distance.amin(dim=1).max() < 0.3  # std 0.1
    assert len(distance.argmin(dim=1).unique()) == 4


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_networks_that_say_the_same_in_other_words_sample_the_same(
    sampler: Sampler, kind: str
) -> None:
    results = []
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        solved = problem(kind, N, prediction_type=prediction_type)
        results.append(solved.solve(sampler, solved.noise()).sample)
    # DPMSolver keeps its noise levels in float32
    tolerance = 1e-5 if kind == "dpmsolver++" else 1e-10
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=tolerance)
    torch.testing.assert_close(results[0], results[2], rtol=0, atol=tolerance)
