"""Schedules that are legal and cannot be meant are warned of, with what to change; others are not."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from para_policy import Process
from para_policy.diffusion.absurd import amplification, noise_left, widening

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SENSIBLE: list[Any] = [
    DDPMScheduler(100, **COSINE),
    DDPMScheduler(1000),
    DDIMScheduler(100, **COSINE),
    DDIMScheduler(1000, set_alpha_to_one=False, steps_offset=1, beta_schedule="scaled_linear"),
    DPMSolverMultistepScheduler(100, lambda_min_clipped=-5.1, **COSINE),
    DPMSolverMultistepScheduler(1000, use_karras_sigmas=True),
]
FLOWS: list[Any] = [
    FlowMatchEulerDiscreteScheduler(100, shift=5.0),
    FlowMatchEulerDiscreteScheduler(100, stochastic_sampling=True),
    FlowMatchHeunDiscreteScheduler(100),
]
OTHERS: list[Any] = [
    UniPCMultistepScheduler(100, solver_order=1, beta_end=0.1),
    DDIMScheduler(100, clip_sample=False, **COSINE),
]
UNCLIPPED: list[tuple[Any, str]] = [
    (UniPCMultistepScheduler(100, solver_order=1, **COSINE), "has no clipping.*ddim"),
    (DEISMultistepScheduler(100, solver_order=1, **COSINE), "dpmsolver"),
    (DPMSolverMultistepScheduler(100, **COSINE), "lambda_min_clipped=-5.1"),
    (
        DDIMScheduler(100, clip_sample=False, timestep_spacing="trailing", **COSINE),
        "clip_sample=True",
    ),
    (
        DDPMScheduler(100, clip_sample=False, timestep_spacing="trailing", **COSINE),
        "clip_sample=True",
    ),
]
TOO_FAR: list[tuple[Any, int, float]] = [
    (DDIMScheduler(100, **COSINE), 51, 1.3),  # from timestep 50
    (
        DDIMScheduler(100, timestep_spacing="trailing", **COSINE),
        51,
        1.8,
    ),  # one level a step, of two
    (DDIMScheduler(100, timestep_spacing="linspace", **COSINE), 51, 1.8),
    (DDPMScheduler(100, **COSINE), 1, 3.3),  # from timestep 0
    (DDPMScheduler(1000, variance_type="fixed_large"), 5, 2.0),
]
LEFT: list[tuple[Any, str]] = [
    (
        DDPMScheduler(100, variance_type="fixed_large", timestep_spacing="trailing", **COSINE),
        "offset",
    ),
    (DDPMScheduler(100, variance_type="fixed_large", steps_offset=3, **COSINE), "'fixed_small'"),
    (DDIMScheduler(40, set_alpha_to_one=False, **COSINE), "set_alpha_to_one=True"),
    (
        DPMSolverMultistepScheduler(
            40, final_sigmas_type="sigma_min", lambda_min_clipped=-5.1, **COSINE
        ),
        "final_sigmas_type='zero'",
    ),
]


@pytest.mark.parametrize("scheduler", [*SENSIBLE, *FLOWS, *OTHERS], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [5, 17])
def test_sensible_schedules_pass_without_a_word(scheduler: Any, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Process.from_scheduler(scheduler, steps)


@pytest.mark.parametrize(("scheduler", "steps", "ratio"), TOO_FAR)
def test_steps_that_take_noise_for_actions_are_told(
    scheduler: Any, steps: int, ratio: float
) -> None:
    with pytest.warns(
        UserWarning, match=rf"num_steps is {steps}, .* {ratio:.2g} times as far .*divides"
    ):
        Process.from_scheduler(scheduler, steps)


@pytest.mark.parametrize(
    ("scheduler", "steps"), [*((s, steps) for s, steps, _ in TOO_FAR), *((s, 10) for s in SENSIBLE)]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_widening_is_what_an_exact_network_makes(scheduler: Any, steps: int) -> None:
    """Sampled by diffusers' own loop, with the noise prediction that is exact for normal data."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.register_to_config(clip_sample=False)
    process = Process.from_scheduler(scheduler, steps)
    columns = {name: getattr(process, name).numpy() for name in (*"BARHc", "signal", "spread")}
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    x = torch.randn(40_000, 1, generator=generator, dtype=torch.float64)
    for s, t in enumerate(scheduler.timesteps):
        spread = float(process.spread[s])
        noise = spread * x / ((0.3 * float(process.signal[s])) ** 2 + spread**2)
        x = scheduler.step(noise, t, x, generator=generator).prev_sample
    np.testing.assert_allclose(float(x.std()) / 0.3, widening(columns), rtol=0.02)


@pytest.mark.parametrize(
    ("scheduler", "fix"), [*LEFT, (DEISMultistepScheduler(20, solver_order=1), "unipc")]
)
def test_noise_that_is_left_on_the_sample_is_told(scheduler: Any, fix: str) -> None:
    with pytest.warns(UserWarning, match=f"is left on every finished sample.*{fix}"):
        Process.from_scheduler(scheduler, 10)


@pytest.mark.parametrize("scheduler", [*(s for s, _ in LEFT), *SENSIBLE])
@pytest.mark.filterwarnings("ignore:noise of standard deviation")
def test_the_noise_that_is_left_is_what_a_perfect_network_leaves(scheduler: Any) -> None:
    """Sampled by diffusers' own loop: the clean sample is 0, and nothing is clipped of it."""
    process = Process.from_scheduler(scheduler, 10)
    columns = {"B": process.B.numpy(), "c": process.c.numpy()}
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(10)
    x = torch.randn(40_000, 1, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps:
        # The noise in x if the clean sample is 0.
        level = (1 - scheduler.alphas_cumprod[int(t)].double()).sqrt()
        if isinstance(scheduler, DPMSolverMultistepScheduler):
            ratio = scheduler.sigmas[scheduler.step_index or 0].double()
            level = ratio / (ratio**2 + 1).sqrt()
        x = scheduler.step(x / level, t, x, generator=generator).prev_sample
    np.testing.assert_allclose(float(x.std()), noise_left(columns), rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(("scheduler", "fix"), UNCLIPPED, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [10, 50])
def test_errors_that_are_amplified_are_told(scheduler: Any, fix: str, steps: int) -> None:
    with pytest.warns(
        UserWarning, match=rf"step 0 of {steps} makes an error .* timestep 99: .*{fix}"
    ):
        Process.from_scheduler(scheduler, steps)


@pytest.mark.parametrize("scheduler", [*(s for s, _ in UNCLIPPED), *SENSIBLE])
@pytest.mark.filterwarnings("ignore:step 0 of:UserWarning")
def test_the_amplification_is_that_of_a_step(scheduler: Any) -> None:
    """Of an output that is far beyond what clipping lets through."""
    process = Process.from_scheduler(scheduler, 10)
    columns = {name: getattr(process, name).numpy() for name in ("A", "R", "x0_from_output")}
    s, x = torch.arange(10), torch.zeros(10, 1, dtype=torch.float64)
    far = 1e6 * process.x0_from_output.sign()[:, None]
    one, other = (
        process.step(x, process.predict_clean(x, output, s), x, x, s) for output in (far, far + 1)
    )
    expected = amplification(process.clip, columns)
    np.testing.assert_allclose((other - one).abs()[:, 0].numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "option", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"]
)
def test_steps_that_are_repeated_at_pure_noise_are_told(option: str) -> None:
    """These spacings are even between the noise levels, the largest of which is 2e4 here."""
    scheduler = DPMSolverMultistepScheduler(100, **{option: True}, **COSINE)
    with pytest.warns(UserWarning, match=r"\d+ of 16 steps repeat timestep 9\d, .* pure noise"):
        Process.from_scheduler(scheduler, 16)
