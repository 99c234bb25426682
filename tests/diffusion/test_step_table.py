"""What a `Process` holds besides agreeing with diffusers step by step."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from para_policy import Process

# numpy 2 warns about how diffusers converts a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_timesteps_that_are_set_are_kept_and_otherwise_all_are_used() -> None:
    scheduler = DDIMScheduler(100)
    assert Process.from_scheduler(scheduler).num_steps == 100
    scheduler.set_timesteps(10)
    assert torch.equal(Process.from_scheduler(scheduler).timesteps, scheduler.timesteps)
    assert Process.from_scheduler(scheduler, 25).num_steps == 25
    custom = DDPMScheduler(100)
    custom.set_timesteps(timesteps=[90, 50, 10])
    assert Process.from_scheduler(custom).timesteps.tolist() == [90, 50, 10]


def test_the_last_ddpm_step_returns_the_clean_prediction_without_noise() -> None:
    process = Process.from_scheduler(DDPMScheduler(100), 100)
    assert (process.A[-1], process.B[-1], process.c[-1]) == (1, 0, 0)
    assert process.sigma[-1] == 0
    assert torch.equal(process.sigma[:-2], process.c[:-1])


def test_the_yardstick_of_deterministic_samplers_is_that_of_the_stochastic_step() -> None:
    noisy = Process.from_scheduler(DDIMScheduler(100), 20, eta=1.0)
    assert torch.equal(Process.from_scheduler(DDIMScheduler(100), 20).sigma, noisy.sigma)
    assert torch.equal(noisy.sigma[:-1], noisy.c)
    scheduler = DPMSolverMultistepScheduler(100, beta_schedule="linear")
    scheduler.set_timesteps(20)
    solver = Process.from_scheduler(scheduler)
    abar = scheduler.alphas_cumprod.double()[solver.timesteps]
    abar = torch.cat([abar, torch.ones(1, dtype=torch.float64)])
    expected = ((1 - abar[1:]) / (1 - abar[:-1]) * (1 - abar[:-1] / abar[1:])).sqrt()
    # the scheduler's own sigmas are float32, hence the tolerance
    assert torch.allclose(solver.sigma[:-1], expected, rtol=1e-4, atol=1e-6)
    flow = Process.from_flow([1.0, 0.5, 0.0])
    assert noisy.sigma[-1] == solver.sigma[-1] == flow.sigma[-1] == 0  # nothing leaves a sample


def test_to_moves_the_table_and_leaves_the_original() -> None:
    process = Process.from_scheduler(DDPMScheduler(100), 10)
    moved = process.to("cpu", torch.float32)
    assert moved.A.dtype == torch.float32
    assert moved.timesteps.dtype == torch.int64
    assert process.A.dtype == torch.float64
    assert moved.clip == process.clip == 1.0
