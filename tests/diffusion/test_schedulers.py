"""Which schedulers and options are taken, and which are refused by name."""

from __future__ import annotations

import copy
import re
from typing import Any

import diffusers
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
from diffusers.schedulers import EulerDiscreteScheduler
from torch import Tensor

from para_policy import Process
from para_policy.diffusion.schedulers import build_scheduler
from para_policy.errors import InputError

# numpy 2 warns about how diffusers converts a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def options_of(scheduler: Any) -> dict[str, Any]:
    return {"_class_name": type(scheduler).__name__, **scheduler.config}


EXAMPLES = [
    DDPMScheduler(100, beta_schedule="squaredcos_cap_v2"),
    DDPMScheduler(100, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    DDIMScheduler(100, beta_schedule="squaredcos_cap_v2", set_alpha_to_one=False, steps_offset=1),
    DPMSolverMultistepScheduler(100, solver_type="heun", final_sigmas_type="sigma_min"),
    UniPCMultistepScheduler(100, solver_order=1),
    FlowMatchEulerDiscreteScheduler(100, shift=3.0),
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
    (DPMSolverMultistepScheduler(100, use_flow_sigmas=True), {}, "prediction_type='epsilon'"),
    (DPMSolverMultistepScheduler(100, prediction_type="flow_prediction"), {}, "prediction_type"),
    (
        DPMSolverMultistepScheduler(
            100, use_flow_sigmas=True, use_karras_sigmas=True, prediction_type="flow_prediction"
        ),
        {"num_steps": 8},
        "use_karras_sigmas",
    ),
    (UniPCMultistepScheduler(100), {}, "solver_order=2"),
    (UniPCMultistepScheduler(100, solver_order=1, predict_x0=False), {}, "predict_x0"),
    (UniPCMultistepScheduler(100, solver_order=1, solver_p=DDIMScheduler(9)), {}, "solver_p"),
    (UniPCMultistepScheduler(100, solver_order=1, thresholding=True), {}, "thresholding"),
    (
        UniPCMultistepScheduler(100, solver_order=1, solver_type="bh1"),
        {"num_steps": 8},
        "solver_type='bh1'",
    ),
    (DEISMultistepScheduler(100), {}, "solver_order=2"),
    (FlowMatchEulerDiscreteScheduler(100, use_dynamic_shifting=True), {}, "use_dynamic_shifting"),
    (
        FlowMatchEulerDiscreteScheduler(100, invert_sigmas=True, stochastic_sampling=True),
        {},
        "stochastic_sampling would end in noise",
    ),
    (FlowMatchEulerDiscreteScheduler(100, shift_terminal=1.5), {}, "shift_terminal is 1.5"),
    (FlowMatchEulerDiscreteScheduler(100, shift=0.0), {}, "shift is 0.0"),
    (FlowMatchEulerDiscreteScheduler(100), {"eta": 0.5}, "eta"),
    (FlowMatchHeunDiscreteScheduler(100), {"num_steps": 10}, "odd number, such as 9 or 11"),
    (FlowMatchHeunDiscreteScheduler(100), {"num_steps": 201}, "allows 1 to 199"),
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
    (DDIMScheduler(100, timestep_spacing="even"), {"num_steps": 9}, "timestep_spacing is 'even'"),
    (
        UniPCMultistepScheduler(100, solver_order=1, final_sigmas_type="none"),
        {"num_steps": 9},
        "final_sigmas_type is 'none'; expected zero or sigma_min",
    ),
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
    with pytest.raises(InputError, match=re.escape(named)):
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


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++", "unipc", "deis"])
def test_another_sampler_keeps_the_trained_noise_schedule(kind: str) -> None:
    built = build_scheduler({**TRAINED, "prediction_type": "sample"}, kind)
    assert torch.equal(built.alphas_cumprod, build_scheduler(TRAINED).alphas_cumprod)
    assert built.config.prediction_type == "sample"
    process = Process.from_scheduler(built, 16)
    assert process.num_steps == 16
    assert (process.clip == 1.0) == (kind in ("ddpm", "ddim"))


VELOCITY = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "num_train_timesteps": 80,
}
FLOWS = [
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0, "num_train_timesteps": 80},
    {"_class_name": "DPMSolverMultistepScheduler", "flow_shift": 2.0, **VELOCITY},
]


@pytest.mark.parametrize("kind", ["flow_match_euler", "flow_match_heun", "dpmsolver++", "unipc"])
@pytest.mark.parametrize("trained", FLOWS, ids=lambda config: str(config["_class_name"]))
def test_another_sampler_keeps_the_flow(trained: dict[str, Any], kind: str) -> None:
    process = Process.from_scheduler(build_scheduler(trained, kind), 15)
    assert process.num_steps == 15
    assert torch.equal(process.signal + process.spread, torch.ones(16, dtype=torch.float64))
    assert torch.equal(process.x0_from_output, -process.spread[:-1])  # of the same velocity
    # Times are levels of noise, those of the multistep samplers in whole numbers.
    assert (process.timesteps - 80 * process.spread[:-1]).abs().max() < 1
    middle = float(process.spread[process.num_steps // 2])
    assert middle == pytest.approx(2 / 3, abs=0.06)  # 2 * 0.5 / (1 + 0.5)


@pytest.mark.parametrize(
    ("trained", "kind", "said"),
    [
        *((flow, kind, "different paths") for flow in FLOWS for kind in ("ddpm", "ddim", "deis")),
        (TRAINED, "flow_match_euler", "different paths"),
        (TRAINED, "flow_match_heun", "expected one of ddpm, ddim, dpmsolver++, unipc, deis"),
        ({**FLOWS[0], "invert_sigmas": True}, "unipc", "invert_sigmas"),
        ({**FLOWS[1], "prediction_type": "sample"}, "flow_match_euler", "prediction_type='sample'"),
    ],
)
def test_a_sampler_for_another_path_is_refused(
    trained: dict[str, Any], kind: str, said: str
) -> None:
    with pytest.raises(InputError, match=said.replace("+", r"\+")):
        build_scheduler(trained, kind)


@pytest.mark.parametrize("betas", ["sigmoid", "laplace"])
@pytest.mark.parametrize("kind", ["ddpm", "ddim", "dpmsolver++"])
def test_betas_that_diffusers_makes_for_ddpm_only_serve_every_sampler(
    kind: str, betas: str
) -> None:
    config = {**TRAINED, "beta_schedule": betas}
    built = build_scheduler(config, kind)
    assert torch.equal(built.alphas_cumprod, build_scheduler(config).alphas_cumprod)
    assert Process.from_scheduler(built, 16).num_steps == 16


@pytest.mark.parametrize("name", ["DDPM", "DDIM"])
def test_diffusers_parallel_schedulers_are_the_plain_ones(name: str) -> None:
    config = {"num_train_timesteps": 100, **COSINE}
    plain = build_scheduler({"_class_name": f"{name}Scheduler", **config})
    parallel = build_scheduler({"_class_name": f"{name}ParallelScheduler", **config})
    assert type(parallel) is type(plain)
    live = getattr(diffusers, f"{name}ParallelScheduler")(**config)
    live.set_timesteps(20)
    assert_same_table(Process.from_scheduler(live), Process.from_scheduler(plain, 20))


def test_an_unknown_kind_is_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match=r"heun.*ddim"):
        build_scheduler(TRAINED, "heun")


def test_a_scheduler_that_has_run_with_gradients_can_be_used() -> None:
    scheduler = DPMSolverMultistepScheduler(100)
    scheduler.set_timesteps(4)
    x = torch.zeros(1, 2, requires_grad=True)
    before = scheduler.step(2 * x, scheduler.timesteps[0], x).prev_sample
    assert Process.from_scheduler(scheduler, 4).num_steps == 4
    after = scheduler.step(2 * before, scheduler.timesteps[1], before).prev_sample
    assert after.requires_grad
    assert scheduler.model_outputs[-1] is not None
