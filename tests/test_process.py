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
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import EulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.errors import InputError
from para_policy.schedulers import build_scheduler

TRAIN_STEPS = 50
STEP_COUNTS = (1, 2, 7, 16, TRAIN_STEPS)
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
    # DPMSolver upcasts to float32 inside its step; let it upcast to float64.
    with patch.object(torch, "float32", torch.float64):
        return scheduler.step(output, t, x).prev_sample


def trajectory(process: Process, noise: Noise) -> Tensor:
    result = samplers.get("sequential")(Denoiser(fake_network), process, noise)
    return result.trajectory.transpose(0, 1)


def assert_parity(scheduler: Any, **options: Any) -> None:
    """One whole trajectory in float64, relative to the largest state where that exceeds 1."""
    in_float64(scheduler)
    noise = make_noise(len(scheduler.timesteps))
    expected = reference(scheduler, noise, **options)
    assert expected.isfinite().all(), f"reference diverges: {dict(scheduler.config)}"
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
        assert_parity(with_steps(scheduler, 16))


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
    "timesteps", [[49, 30, 29, 7, 0], [40, 20, 3], [12], list(range(49, -1, -1)), [48, 47, 46, 1]]
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
    assert_parity(with_steps(DDPMScheduler(TRAIN_STEPS, trained_betas=betas), 16))


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
        assert_parity(with_steps(scheduler, 16), eta=0.3)


SIGMAS: tuple[dict[str, Any], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 14, 15, 24])
def test_dpmsolver_equals_the_schedulers_own_step(num_steps: int) -> None:
    for options in grid(
        solver=({"solver_order": 1}, {"solver_type": "midpoint"}, {"solver_type": "heun"}),
        lower_order_final=(True, False),
        euler_at_final=(True, False),
        final_sigmas_type=("zero", "sigma_min"),
        timestep_spacing=SPACINGS,
        prediction_type=PREDICTIONS,
    ):
        assert_parity(with_steps(DPMSolverMultistepScheduler(TRAIN_STEPS, **options), num_steps))


@pytest.mark.parametrize("num_steps", [2, 7, 20])
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
        prediction_type=PREDICTIONS,
    ):
        scheduler = with_steps(DPMSolverMultistepScheduler(TRAIN_STEPS, **options), num_steps)
        # diffusers starts at the second of two equal first timesteps: not the chain it announces
        if scheduler.timesteps.tolist().count(int(scheduler.timesteps[0])) == 1:
            assert_parity(scheduler)


def test_dpmsolver_with_every_training_step() -> None:
    for options in grid(solver_order=(1, 2), final_sigmas_type=("zero", "sigma_min")):
        scheduler = DPMSolverMultistepScheduler(
            TRAIN_STEPS, timestep_spacing="trailing", **options
        )
        assert_parity(with_steps(scheduler, TRAIN_STEPS))


def options_of(scheduler: Any) -> dict[str, Any]:
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


EXAMPLES = [
    DDPMScheduler(100, beta_schedule="squaredcos_cap_v2"),
    DDPMScheduler(100, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", set_alpha_to_one=False, steps_offset=1),
    DPMSolverMultistepScheduler(100, solver_type="heun", final_sigmas_type="sigma_min"),
]


def assert_same_table(a: Process, b: Process) -> None:
    for name in Process.__dataclass_fields__:
        left, right = getattr(a, name), getattr(b, name)
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right, name


@pytest.mark.parametrize("scheduler", EXAMPLES, ids=lambda s: type(s).__name__)
def test_a_configuration_gives_the_same_table_as_the_object(scheduler: Any) -> None:
    from_object = Process.from_scheduler(scheduler, 16)
    assert_same_table(Process.from_scheduler(options_of(scheduler), 16), from_object)
    shipped = {"_diffusers_version": "0.11.1", **options_of(scheduler)}
    assert_same_table(Process.from_scheduler(shipped, 16), from_object)


@pytest.mark.parametrize("scheduler", EXAMPLES, ids=lambda s: type(s).__name__)
def test_the_scheduler_is_left_unchanged(scheduler: Any) -> None:
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(20)
    before = copy.deepcopy(vars(scheduler))
    Process.from_scheduler(scheduler, 7)
    for name, value in before.items():
        now = getattr(scheduler, name)
        same = torch.equal(value, now) if isinstance(value, Tensor) else value == now
        assert same, name


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
    solver = Process.from_scheduler(in_float64(scheduler))
    abar = scheduler.alphas_cumprod[solver.timesteps]
    abar = torch.cat([abar, torch.ones(1, dtype=torch.float64)])
    expected = ((1 - abar[1:]) / (1 - abar[:-1]) * (1 - abar[:-1] / abar[1:])).sqrt()
    # the scheduler's own sigmas are float32, hence the tolerance
    assert torch.allclose(solver.sigma[:-1], expected, rtol=1e-4, atol=1e-6)


def test_to_moves_the_table_and_leaves_the_original() -> None:
    process = Process.from_scheduler(DDPMScheduler(100), 10)
    moved = process.to("cpu", torch.float32)
    assert moved.A.dtype == torch.float32 and moved.timesteps.dtype == torch.int64
    assert process.A.dtype == torch.float64
    assert moved.clip == process.clip == 1.0


COSINE = {"beta_schedule": "squaredcos_cap_v2"}
REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (DDPMScheduler(100, thresholding=True), {}, "thresholding"),
    (DDIMScheduler(100, thresholding=True), {}, "thresholding"),
    (DPMSolverMultistepScheduler(100, thresholding=True), {}, "thresholding"),
    (DDPMScheduler(100, variance_type="learned"), {}, "variance_type='learned'"),
    (DDPMScheduler(100, variance_type="learned_range"), {}, "variance_type='learned_range'"),
    (DDPMScheduler(100, variance_type="fixed_large_log"), {}, "variance_type='fixed_large_log'"),
    (DPMSolverMultistepScheduler(100, variance_type="learned"), {}, "variance_type"),
    (DPMSolverMultistepScheduler(100, algorithm_type="sde-dpmsolver++"), {}, "algorithm_type"),
    (DPMSolverMultistepScheduler(100, solver_order=3), {}, "solver_order=3"),
    (DPMSolverMultistepScheduler(100, use_flow_sigmas=True), {}, "use_flow_sigmas"),
    (DPMSolverMultistepScheduler(100, prediction_type="flow_prediction"), {}, "prediction_type"),
    (EulerDiscreteScheduler(100), {}, "EulerDiscreteScheduler"),
    (object(), {}, "object"),
    (DDPMScheduler(100), {"eta": 0.5}, "eta"),
    (DPMSolverMultistepScheduler(100), {"eta": 0.5}, "eta"),
    (DDIMScheduler(100), {"eta": -0.1}, "eta"),
    (DDIMScheduler(100), {"eta": 1.1}, "eta"),
    (DDIMScheduler(100), {"eta": float("nan")}, "eta"),
    (DDPMScheduler(100), {"num_steps": 0}, "num_steps"),
    (DDPMScheduler(100), {"num_steps": -3}, "num_steps"),
    (DDIMScheduler(100), {"num_steps": 101}, "num_steps"),
    (DDPMScheduler(100, rescale_betas_zero_snr=True), {}, "rescale_betas_zero_snr"),
    (DDIMScheduler(100, rescale_betas_zero_snr=True), {}, "rescale_betas_zero_snr"),
    ({"_class_name": "EulerDiscreteScheduler"}, {}, "EulerDiscreteScheduler"),
    ({"num_train_timesteps": 100}, {}, "_class_name"),
    ({"_class_name": "DDPMScheduler", "clip_smaple": True}, {}, "clip_smaple"),
    ({"_class_name": "DDPMScheduler", "thresholding": True}, {}, "thresholding"),
    # These three make diffusers itself index out of range, step to t = -1 or divide by zero.
    (DDIMScheduler(100, steps_offset=1), {"num_steps": 100}, "timesteps"),
    (DDPMScheduler(100, timestep_spacing="trailing"), {"num_steps": 29}, "timesteps"),
    (DDIMScheduler(100, timestep_spacing="trailing"), {"num_steps": 29}, "timesteps"),
    (DPMSolverMultistepScheduler(100), {"num_steps": 100}, "num_steps"),
]


@pytest.mark.parametrize(
    ("scheduler", "options", "named"),
    REFUSED,
    ids=lambda value: type(value).__name__ if not isinstance(value, (dict, str)) else str(value),
)
def test_what_cannot_be_represented_is_refused_by_name(
    scheduler: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match="^(?s:.*)" + named.replace("+", r"\+")):
        Process.from_scheduler(scheduler, **options)


@pytest.mark.parametrize("num_steps", [10.0, "10", True])
def test_a_step_count_that_is_no_integer_is_refused(num_steps: Any) -> None:
    with pytest.raises(InputError, match="num_steps"):
        Process.from_scheduler(DDPMScheduler(100), num_steps)


def test_zero_terminal_snr_is_fine_where_it_is_never_divided_by() -> None:
    scheduler = DDPMScheduler(100, rescale_betas_zero_snr=True)
    assert Process.from_scheduler(scheduler, 10).timesteps[0] == 90


TRAINED: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 100,
    "variance_type": "fixed_small",
    "clip_sample": True,
    **COSINE,
}


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_another_sampler_keeps_the_trained_noise_schedule(kind: str) -> None:
    built = build_scheduler({**TRAINED, "prediction_type": "sample"}, kind)
    assert torch.equal(built.alphas_cumprod, build_scheduler(TRAINED).alphas_cumprod)
    assert built.config.prediction_type == "sample"
    process = Process.from_scheduler(built, 16)
    assert process.num_steps == 16
    assert (process.clip == 1.0) == (kind != "dpmsolver++")


def test_an_unknown_kind_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="heun.*ddim"):
        build_scheduler(TRAINED, "heun")


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_every_prediction_type_gives_the_same_sample_from_the_same_belief(kind: str) -> None:
    """Three networks that say the same in different words must sample the same."""
    results = []
    for prediction in PREDICTIONS:
        scheduler = build_scheduler({**TRAINED, "prediction_type": prediction}, kind)
        abars = scheduler.alphas_cumprod.double()

        def network(
            x: Tensor, t: Tensor, abars: Tensor = abars, prediction: str = prediction
        ) -> Tensor:
            abar = abars[t].reshape(-1, 1, 1)
            clean = torch.tanh(fake_network(x, t))
            noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
            if prediction == "v_prediction":
                return abar.sqrt() * noise - (1 - abar).sqrt() * clean
            return clean if prediction == "sample" else noise

        process = Process.from_scheduler(scheduler, 16)
        solve = samplers.get("sequential")
        results.append(solve(Denoiser(network), process, make_noise(16)).sample)
    assert torch.allclose(results[0], results[1], atol=1e-5)  # DPMSolver's sigmas are float32
    assert torch.allclose(results[0], results[2], atol=1e-5)
