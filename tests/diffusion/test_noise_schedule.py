"""What is trained on is what is sampled from: noised samples and targets against the closed form."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar

from para_policy.diffusion.flow import Velocity
from para_policy.diffusion.noise_schedule import DiscreteSchedule, noise_schedule
from para_policy.diffusion.process import Process
from para_policy.diffusion.schedulers import FLOW_ONLY, SCHEDULERS
from para_policy.errors import InputError

T = 50
BETAS = {
    "linear": torch.linspace(1e-4, 0.02, T),
    "scaled_linear": torch.linspace(1e-4**0.5, 0.02**0.5, T) ** 2,
    "squaredcos_cap_v2": betas_for_alpha_bar(T),
}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
KINDS = [made.__name__ for kind, made in SCHEDULERS.items() if kind not in FLOW_ONLY]


def flow(velocity: str, sigma_min: float, times: tuple[float, float]) -> dict[str, Any]:
    return {
        "_class_name": "FlowMatching",
        "velocity": velocity,
        "sigma_min": sigma_min,
        "times": list(times),
    }


def config(kind: str, betas: str, **options: Any) -> dict[str, Any]:
    made = {"_class_name": kind, "num_train_timesteps": T, "beta_schedule": betas, **options}
    if kind == "DPMSolverMultistepScheduler":
        made["lambda_min_clipped"] = -5.1
    if kind in ("UniPCMultistepScheduler", "DEISMultistepScheduler"):
        made["solver_order"] = 1
    return made


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_and_target_are_those_of_the_closed_form(
    kind: str, betas: str, prediction: str
) -> None:
    schedule = noise_schedule(config(kind, betas, prediction_type=prediction))
    random, t = torch.Generator().manual_seed(0), torch.arange(T)
    clean, noise = torch.randn(2, T, 3, 2, generator=random)
    alpha_bar = np.cumprod(1 - BETAS[betas].double().numpy())[:, None, None]
    signal, spread = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    assert isinstance(schedule, DiscreteSchedule)
    assert len(schedule) == T
    assert (schedule.timestep(t) == t).all()
    expected = signal * clean.numpy() + spread * noise.numpy()
    np.testing.assert_allclose(schedule.noised(clean, noise, t), expected, atol=2e-5)
    target = {
        "epsilon": noise.numpy(),
        "sample": clean.numpy(),
        "v_prediction": signal * noise.numpy() - spread * clean.numpy(),
    }[prediction]
    np.testing.assert_allclose(schedule.target(clean, noise, t), target, atol=2e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_learned_its_target_is_sampled_as_exact(kind: str, prediction: str) -> None:
    """The step table of sampling turns the target of every level back into the clean sample."""
    made = config(kind, "squaredcos_cap_v2", prediction_type=prediction)
    schedule = noise_schedule(made)
    process = Process.from_scheduler(made, 16)
    random, t = torch.Generator().manual_seed(0), process.timesteps
    clean, noise = torch.randn(2, 16, 3, 2, generator=random, dtype=torch.float64)
    x, target = schedule.noised(clean, noise, t), schedule.target(clean, noise, t)
    found = process.predict_clean(x, target, torch.arange(16))
    torch.testing.assert_close(found, clean, atol=5e-3, rtol=0)


def test_what_no_sampler_takes_is_no_target() -> None:
    made = config("DPMSolverMultistepScheduler", "linear", prediction_type="flow_prediction")
    with pytest.raises(InputError, match=r"prediction_type is 'flow_prediction'.*v_prediction"):
        noise_schedule(made)


FLOWS = [
    (velocity, sigma_min, times)
    for velocity in get_args(Velocity)
    for sigma_min in (0.0, 0.01)
    for times in ((0.0, 1.0), (1.0, 0.0), (0.0, 1000.0))
]


@pytest.mark.parametrize(("velocity", "sigma_min", "times"), FLOWS)
def test_a_flow_has_the_noise_and_target_of_the_closed_form(
    velocity: str, sigma_min: float, times: tuple[float, float]
) -> None:
    """In the words of LeRobot's `multi_task_dit`: t = 1 - sigma, velocity from noise to data."""
    schedule = noise_schedule(flow(velocity, sigma_min, times))
    random, sigma = torch.Generator().manual_seed(0), torch.linspace(0, 1, T)
    clean, noise = torch.randn(2, T, 3, 2, generator=random)
    t = (1 - sigma)[:, None, None]
    expected = t * clean + (1 - (1 - sigma_min) * t) * noise
    torch.testing.assert_close(schedule.noised(clean, noise, sigma), expected)
    target = clean - (1 - sigma_min) * noise
    sign = {"data-noise": 1, "noise-data": -1}[velocity]
    torch.testing.assert_close(schedule.target(clean, noise, sigma), sign * target)
    torch.testing.assert_close(
        schedule.timestep(sigma), torch.linspace(*times, T), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("velocity", "sigma_min", "times"), FLOWS)
def test_a_flow_that_is_trained_is_the_one_that_is_sampled(
    velocity: str, sigma_min: float, times: tuple[float, float]
) -> None:
    made = flow(velocity, sigma_min, times)
    schedule, process = noise_schedule(made), Process.from_scheduler(made, 16)
    random, sigma = torch.Generator().manual_seed(0), torch.linspace(1, 0, 17).double()[:-1]
    clean, noise = torch.randn(2, 16, 3, 2, generator=random, dtype=torch.float64)
    x, target = schedule.noised(clean, noise, sigma), schedule.target(clean, noise, sigma)
    torch.testing.assert_close(process.predict_clean(x, target, torch.arange(16)), clean)
    torch.testing.assert_close(process.timesteps.double(), schedule.timestep(sigma))
