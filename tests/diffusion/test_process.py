"""The step table agrees with diffusers' own `step`, over the whole grid of options."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

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
from diffusers.schedulers import scheduling_ddpm, scheduling_flow_match_euler_discrete
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.errors import InputError

# numpy 2 warns about how diffusers converts a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN_STEPS = 20
STEP_COUNTS = (1, 7, TRAIN_STEPS)  # 7 does not divide
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SPACINGS = ("leading", "trailing", "linspace")
CLIPS: tuple[dict[str, Any], ...] = (
    {"clip_sample": False},
    {"clip_sample": True, "clip_sample_range": 1.0},
    {"clip_sample": True, "clip_sample_range": 0.4},
)


def fake_network(x: Tensor, t: Tensor) -> Tensor:
    """Smooth, nonlinear, dependent on the timestep, saturating: errors are not amplified."""
    phase = 0.05 * t.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
    return 0.9 * torch.tanh(0.8 * x + torch.cos(phase)) + 0.1 * torch.sin(phase)


def in_float64(scheduler: Any) -> Any:
    """Make the scheduler compute in float64: its tables are all that is float32."""
    for name in ("alphas_cumprod", "final_alpha_cumprod", "one", "sigmas"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def make_noise(num_steps: int) -> Noise:
    return Noise.from_seeds([3], (3, 2), num_steps, dtype=torch.float64)


def reference(scheduler: Any, noise: Noise, **step_options: Any) -> Tensor:
    """(N + 1, 1, *shape): diffusers' own loop, fed with our noise."""
    scheduler = copy.deepcopy(scheduler)
    states = [noise.initial]
    for s, t in enumerate(scheduler.timesteps):
        output = fake_network(states[-1], t[None])
        states.append(_step(scheduler, output, t, states[-1], noise.steps[:, s], step_options))
    return torch.stack(states)


def _step(
    scheduler: Any, output: Tensor, t: Tensor, x: Tensor, xi: Tensor, options: dict[str, Any]
) -> Tensor:
    if isinstance(scheduler, DDIMScheduler):
        noise = {"variance_noise": xi} if options.get("eta") else {}
        return scheduler.step(output, int(t), x, **options, **noise).prev_sample
    if isinstance(scheduler, DDPMScheduler):
        with patch.object(scheduling_ddpm, "randn_tensor", lambda *_, **__: xi):
            return scheduler.step(output, t, x).prev_sample
    # The others upcast to float32 inside their steps; let them upcast to float64.
    with (
        patch.object(torch, "float32", torch.float64),
        patch.object(scheduling_flow_match_euler_discrete, "randn_tensor", lambda *_, **__: xi),
    ):
        return scheduler.step(output, t, x).prev_sample


def trajectory(process: Process, noise: Noise) -> Tensor:
    result = samplers.get("sequential")(Denoiser(fake_network), process, noise)
    return result.trajectory.transpose(0, 1)


def assert_parity(scheduler: Any, **options: Any) -> None:
    """One whole trajectory in float64, relative to the largest state where that exceeds 1."""
    in_float64(scheduler)
    noise = make_noise(len(scheduler.timesteps))
    expected = reference(scheduler, noise, **options)
    if not expected.isfinite().all():  # diffusers divides by zero: then we must say so
        with pytest.raises(InputError):
            Process.from_scheduler(scheduler, **options)
        return
    error = (trajectory(Process.from_scheduler(scheduler, **options), noise) - expected).abs()
    worst = (error / expected.abs().clamp(min=1)).max().item()
    assert worst < 1e-10, f"{worst} with {options}, {dict(scheduler.config)}"


def grid(**axes: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Every combination; an axis of dicts is merged into the options."""
    for values in itertools.product(*axes.values()):
        options: dict[str, Any] = {}
        for name, value in zip(axes, values, strict=True):
            options.update(value if isinstance(value, dict) else {name: value})
        yield options


def with_steps(scheduler: Any, num_steps: int) -> Any:
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.parametrize("num_steps", STEP_COUNTS)
def test_ddpm_equals_the_schedulers_own_step(num_steps: int) -> None:
    for options in grid(
        prediction_type=PREDICTIONS,
        clip=CLIPS,
        timestep_spacing=SPACINGS,
        variance_type=("fixed_small", "fixed_small_log", "fixed_large"),
        beta_schedule=("linear", "squaredcos_cap_v2"),
    ):
        assert_parity(with_steps(DDPMScheduler(TRAIN_STEPS, **options), num_steps))


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "sigmoid", "laplace"])
def test_ddpm_parity_on_the_other_beta_schedules(beta_schedule: str) -> None:
    for options in grid(prediction_type=PREDICTIONS, clip=CLIPS[:2], timestep_spacing=SPACINGS):
        scheduler = DDPMScheduler(TRAIN_STEPS, beta_schedule=beta_schedule, **options)
        assert_parity(with_steps(scheduler, 12))


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_parity_with_zero_terminal_snr(kind: type[Any], prediction_type: str) -> None:
    for options in grid(
        clip=CLIPS, timestep_spacing=SPACINGS, beta_schedule=("linear", "squaredcos_cap_v2")
    ):
        for num_steps in STEP_COUNTS:
            scheduler = kind(
                TRAIN_STEPS,
                rescale_betas_zero_snr=True,
                prediction_type=prediction_type,
                **options,
            )
            assert_parity(with_steps(scheduler, num_steps))


@pytest.mark.parametrize(
    "timesteps", [[19, 12, 11, 3, 0], [17, 8, 3], [9], list(range(19, -1, -1)), [18, 17, 16, 1]]
)
def test_ddpm_parity_with_custom_timesteps(timesteps: list[int]) -> None:
    for options in grid(
        prediction_type=PREDICTIONS, clip=CLIPS, variance_type=("fixed_small", "fixed_large")
    ):
        scheduler = DDPMScheduler(TRAIN_STEPS, beta_schedule="squaredcos_cap_v2", **options)
        scheduler.set_timesteps(timesteps=timesteps)
        assert_parity(scheduler)


def test_ddpm_parity_with_a_steps_offset_and_trained_betas() -> None:
    betas = np.linspace(1e-3, 0.2, TRAIN_STEPS).tolist()
    assert_parity(with_steps(DDPMScheduler(TRAIN_STEPS, steps_offset=1), 7))
    assert_parity(with_steps(DDPMScheduler(TRAIN_STEPS, trained_betas=betas), 12))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("num_steps", STEP_COUNTS)
def test_ddim_equals_the_schedulers_own_step(num_steps: int, eta: float) -> None:
    for options in grid(
        prediction_type=PREDICTIONS,
        clip=CLIPS,
        timestep_spacing=SPACINGS,
        set_alpha_to_one=(True, False),
        beta_schedule=("linear", "squaredcos_cap_v2"),
    ):
        for use_clipped in (False, True):
            scheduler = with_steps(DDIMScheduler(TRAIN_STEPS, **options), num_steps)
            if not ddim_variance_is_positive(scheduler) and eta > 0:
                continue  # diffusers itself returns NaN here
            assert_parity(scheduler, eta=eta, use_clipped_model_output=use_clipped)


def ddim_variance_is_positive(scheduler: Any) -> bool:
    """Spacings that do not divide make DDIM's fixed stride skip below 0 or rise in noise."""
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    variances = [scheduler._get_variance(int(t), int(t) - stride) for t in scheduler.timesteps]
    return bool((torch.stack(variances) >= 0).all())


@pytest.mark.parametrize("steps_offset", [0, 1, 3])
def test_ddim_parity_with_a_steps_offset(steps_offset: int) -> None:
    for options in grid(
        prediction_type=PREDICTIONS, set_alpha_to_one=(True, False), clip=CLIPS[:2]
    ):
        scheduler = DDIMScheduler(
            TRAIN_STEPS, steps_offset=steps_offset, beta_schedule="scaled_linear", **options
        )
        assert_parity(with_steps(scheduler, 12), eta=0.3)


SIGMAS: tuple[dict[str, Any], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
)


@pytest.mark.parametrize("num_steps", [1, 2, 14, 15])
def test_dpmsolver_equals_the_schedulers_own_step(num_steps: int) -> None:
    for options in grid(
        solver=({"solver_order": 1}, {"solver_type": "midpoint"}, {"solver_type": "heun"}),
        lower_order_final=(True, False),
        euler_at_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
        timestep_spacing=SPACINGS,
    ):
        assert_parity(with_steps(DPMSolverMultistepScheduler(50, **options), num_steps))


@pytest.mark.parametrize("num_steps", [2, 16])
def test_dpmsolver_parity_on_every_sigma_spacing(num_steps: int) -> None:
    for options in grid(
        sigmas=SIGMAS,
        solver_order=(1, 2),
        solver_type=("midpoint", "heun"),
        final_sigmas_type=("zero", "sigma_min"),
        schedule=(
            {"beta_schedule": "linear"},
            {"beta_schedule": "scaled_linear"},
            {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
            {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
        ),
        prediction_type=("epsilon", "v_prediction"),
    ):
        scheduler = with_steps(DPMSolverMultistepScheduler(50, **options), num_steps)
        # diffusers starts at the second of two equal first timesteps: not the chain it announces
        if scheduler.timesteps.tolist().count(int(scheduler.timesteps[0])) == 1:
            assert_parity(scheduler)


def test_dpmsolver_with_every_training_step() -> None:
    for options in grid(solver_order=(1, 2), final_sigmas_type=("zero", "sigma_min")):
        scheduler = DPMSolverMultistepScheduler(TRAIN_STEPS, timestep_spacing="trailing", **options)
        assert_parity(with_steps(scheduler, TRAIN_STEPS))


@pytest.mark.parametrize("num_steps", [1, 2, 15])
def test_dpmsolver_on_a_path_of_flow_matching(num_steps: int) -> None:
    for options in grid(
        solver=({"solver_order": 1}, {"solver_type": "midpoint"}, {"solver_type": "heun"}),
        lower_order_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
        prediction_type=("flow_prediction", "sample"),
        flow_shift=(1.0, 3.0),
    ):
        scheduler = DPMSolverMultistepScheduler(50, use_flow_sigmas=True, **options)
        assert_parity(with_steps(scheduler, num_steps))


PATHS: tuple[dict[str, Any], ...] = (
    *({"timestep_spacing": spacing} for spacing in SPACINGS),
    {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
)


def assert_parity_from_the_first_step(scheduler: Any) -> None:
    # diffusers starts at the second of two equal first timesteps: not the chain it announces
    if scheduler.timesteps.tolist().count(float(scheduler.timesteps[0])) == 1:
        assert_parity(scheduler)


@pytest.mark.parametrize("num_steps", [1, 2, 16])
def test_unipc_of_order_1_equals_the_schedulers_own_step(num_steps: int) -> None:
    for options in grid(
        path=(*PATHS, {**PATHS[-1], "use_karras_sigmas": True}),
        solver_type=("bh1", "bh2"),
        final_sigmas_type=("zero", "sigma_min"),
        disable_corrector=([], [0, 3, 99]),
    ):
        scheduler = UniPCMultistepScheduler(50, solver_order=1, **options)
        assert_parity_from_the_first_step(with_steps(scheduler, num_steps))


@pytest.mark.parametrize("num_steps", [1, 2, 16])
def test_deis_of_order_1_equals_the_schedulers_own_step(num_steps: int) -> None:
    for options in PATHS:
        scheduler = DEISMultistepScheduler(50, solver_order=1, **options)
        assert_parity_from_the_first_step(with_steps(scheduler, num_steps))


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_flow_match_euler_equals_the_schedulers_own_step(num_steps: int, stochastic: bool) -> None:
    for options in grid(
        shift=(1.0, 3.0, 0.5, 0.2),  # the last one rounds its first level to above 1
        sigmas=SIGMAS[:4],
        end=({}, {"shift_terminal": 0.1}, {"invert_sigmas": True}),
    ):
        if num_steps == 1 and "shift_terminal" in options:
            continue  # diffusers divides 0 by 0
        if stochastic and "invert_sigmas" in options:
            continue  # ends in noise
        scheduler = FlowMatchEulerDiscreteScheduler(50, stochastic_sampling=stochastic, **options)
        assert_parity_from_the_first_step(with_steps(scheduler, num_steps))


@pytest.mark.parametrize(
    "given", [{"sigmas": [1.0, 0.7, 0.2]}, {"timesteps": [50.0, 31.4, 2.0]}], ids=str
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler_with_levels_or_times_of_the_caller(
    given: dict[str, Any], shift: float
) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(50, shift=shift)
    scheduler.set_timesteps(**given)
    assert_parity(scheduler)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_flow_match_heun_equals_the_schedulers_own_step(num_steps: int) -> None:
    for shift in (1.0, 3.0, 0.5, 0.2):  # the last one rounds its first level to above 1
        scheduler = with_steps(FlowMatchHeunDiscreteScheduler(50, shift=shift), num_steps)
        assert Process.from_scheduler(scheduler).num_steps == 2 * num_steps - 1
        assert_parity(scheduler)


def test_a_table_that_inference_mode_has_moved_first_can_be_trained_with() -> None:
    """It is moved once for all."""
    process = Process.from_scheduler(DDPMScheduler(10), 10)
    with torch.inference_mode():
        first = process.to("cpu", torch.float32)
    moved = process.to(torch.device("cpu"), torch.float32)
    assert moved is first
    assert process.to("cpu", torch.float64) is not moved
    x = torch.ones(10, 2, requires_grad=True)
    (moved.B[:, None] * x).sum().backward()
    assert x.grad is not None
