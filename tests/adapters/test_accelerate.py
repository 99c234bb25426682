"""`accelerate`: the policies of other projects, with the same noise, give the same actions."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from para_policy import samplers
from para_policy.adapters import Acceleration, accelerate, sample
from para_policy.errors import CheckpointError, InputError, NonFiniteError
from tests.adapters import peer_policies as peers

MAKERS: dict[str, Callable[..., Any]] = {
    "lerobot": peers.LeRobotPolicy,
    "old lerobot": lambda s=None: peers.LeRobotPolicy(s, peers.OldLeRobotModel),
    "original unet": peers.OriginalUnetPolicy,
    "original transformer": peers.OriginalTransformerPolicy,
}
TIGHT = {"tolerance": 1e-5}
SCHEDULERS: dict[str, Any] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}
PARALLEL: dict[str, Any] = {
    "ddpm parallel": DDPMParallelScheduler,
    "ddim parallel": DDIMParallelScheduler,
}


def make(kind: str, noise_scheduler: Any = None, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return MAKERS[kind](noise_scheduler).eval()


def drive(policy: Any, seed: int = 1, chunks: int = 3, batch: int = 2) -> Tensor:
    """All actions of an episode: (chunks, batch, ...), with noise from torch's global generator."""
    generator = torch.Generator().manual_seed(99)
    torch.manual_seed(seed)
    actions = []
    if hasattr(policy, "select_action"):
        policy.reset()
        for _ in range(chunks * peers.EXECUTED):
            state = torch.randn(batch, peers.OBSERVED, generator=generator)
            actions.append(policy.select_action({"observation.state": state}))
    else:
        for _ in range(chunks):
            obs = torch.randn(batch, peers.HISTORY, peers.OBSERVED, generator=generator)
            actions.append(policy.predict_action({"obs": obs})["action"])
    return torch.stack([action.detach() for action in actions])


def observations(policy: Any, count: int = 48, seed: int = 5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    if hasattr(policy, "select_action"):
        shape, name = (1, peers.OBSERVED), "observation.state"
    else:
        shape, name = (1, peers.HISTORY, peers.OBSERVED), "obs"
    return [{name: torch.randn(*shape, generator=generator)} for _ in range(count)]


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("scheduler", ["ddpm", "ddim"])
@pytest.mark.parametrize("sampler", ["sequential", "x0", "chord"])
def test_same_seed_same_actions(kind: str, scheduler: str, sampler: str) -> None:
    """Chunk after chunk: the global generator is also left where the loop leaves it."""
    policy = make(kind, peers.scheduler(scheduler))
    expected = drive(policy)
    after = torch.get_rng_state()
    given = {"observations": observations(policy)} if sampler == "chord" else {}
    options = {} if sampler == "sequential" else TIGHT
    assert accelerate(policy, sampler=sampler, **given, **options) is policy
    found = drive(policy)
    assert difference(found, expected) < (1e-5 if sampler == "sequential" else 1e-4)
    assert torch.equal(torch.get_rng_state(), after)
    assert difference(drive(policy, seed=2), expected) > 0.1  # the noise matters


def test_a_default_device_of_the_host_program_is_refused() -> None:
    policy = make("lerobot")
    with torch.device("meta"), pytest.raises(InputError, match="torch's default device is meta"):
        accelerate(policy)
    accelerate(policy)
    state = {"observation.state": torch.zeros(1, peers.OBSERVED)}
    with torch.device("meta"), pytest.raises(InputError, match="torch's default device is meta"):
        policy.select_action(state)


@pytest.mark.parametrize("kind", MAKERS)
def test_fewer_rounds_and_default_tolerance(kind: str) -> None:
    policy = make(kind)
    expected = drive(policy)
    accelerate(policy)
    assert difference(drive(policy), expected) < 2e-2
    last = policy.para_policy.last
    assert last.rounds.shape == (2,)
    assert int(last.rounds.max()) < 20  # of 40
    assert last.converged.all()
    assert float(last.residual.max()) <= 1e-2


@pytest.mark.parametrize("kind", ["lerobot", "original unet"])
def test_generator_and_noise_of_the_caller(kind: str) -> None:
    policy = make(kind)
    condition = torch.randn(3, peers.HISTORY * peers.OBSERVED)
    owner = policy.diffusion if kind == "lerobot" else policy
    data = torch.zeros(3, peers.HORIZON, peers.ACTIONS)
    arguments = (3,) if kind == "lerobot" else (data, data.bool())

    def draw(**given: Any) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            actions = owner.conditional_sample(
                *arguments, global_cond=condition, generator=generator, **given
            )
        return actions, generator.get_state()

    given = [{}, {"noise": torch.randn(3, peers.HORIZON, peers.ACTIONS)}]
    cases = given if kind == "lerobot" else given[:1]
    expected = [draw(**case) for case in cases]
    accelerate(policy, **TIGHT)
    for case, (actions, state) in zip(cases, expected, strict=True):
        before = torch.get_rng_state()
        found, left = draw(**case)
        assert difference(found, actions) < 1e-4
        assert torch.equal(left, state)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_step_options_of_the_original(eta: float) -> None:
    torch.manual_seed(0)
    options = {"eta": eta, "use_clipped_model_output": True}
    policy = peers.OriginalUnetPolicy(peers.scheduler("ddim"), **options).eval()
    expected = drive(policy)
    assert difference(drive(accelerate(policy, **TIGHT)), expected) < 1e-4
    policy.kwargs = {"eta": 1.0}
    assert difference(drive(policy), expected) > 0.05


def test_steps_and_scheduler_are_read_at_every_call() -> None:
    """Scripts of both projects change them on the live object."""
    plain, policy = make("original unet"), make("original unet")
    accelerate(policy, **TIGHT)
    drive(policy)
    for one in (plain, policy):
        one.num_inference_steps = 10
        one.noise_scheduler = peers.scheduler("ddim")
    assert difference(drive(policy), drive(plain)) < 1e-4
    assert policy.para_policy.last.trajectory.shape[1] == 11


def test_another_scheduler_and_step_count() -> None:
    plain = make("lerobot", peers.scheduler("ddim"))
    plain.diffusion.num_inference_steps = 8
    policy = accelerate(make("lerobot"), scheduler="ddim", steps=8, **TIGHT)
    assert difference(drive(policy), drive(plain)) < 1e-4
    assert policy.diffusion.num_inference_steps == 40  # its own setting is left alone


def test_dpm_solver() -> None:
    made = DPMSolverMultistepScheduler(
        40, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1
    )
    policy = make("original transformer", made)
    policy.num_inference_steps = 12
    expected = drive(policy)
    assert difference(drive(accelerate(policy, **TIGHT)), expected) < 1e-4


def test_undo_gives_back_the_very_object() -> None:
    policy = make("lerobot")
    names, weights = set(vars(policy.diffusion)), list(policy.state_dict())
    expected = drive(policy)
    accelerate(policy)
    assert list(policy.state_dict()) == weights
    assert len(list(policy.modules())) == len(list(make("lerobot").modules()))
    policy.para_policy.undo()
    assert set(vars(policy.diffusion)) == names
    assert not hasattr(policy, "para_policy")
    assert torch.equal(drive(policy), expected)


def test_undo_restores_a_patch_that_was_there_before() -> None:
    policy = make("original unet")
    method = policy.conditional_sample
    policy.conditional_sample = method
    accelerate(policy).para_policy.undo()
    assert vars(policy)["conditional_sample"] is method


def test_undo_leaves_the_wrappers_of_others() -> None:
    policy = make("lerobot")
    expected = drive(policy)
    accelerate(policy)
    ours, calls = policy.diffusion.conditional_sample, []

    @functools.wraps(ours)
    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return ours(*args, **kwargs)

    policy.diffusion.conditional_sample = wrapper
    accelerate(policy, **TIGHT)
    assert policy.diffusion.conditional_sample is wrapper
    policy.para_policy.undo()
    assert policy.diffusion.conditional_sample is wrapper
    assert not hasattr(policy, "para_policy")
    calls.clear()
    assert torch.equal(drive(policy), expected)
    assert calls


def test_accelerating_twice_changes_the_settings() -> None:
    policy = make("lerobot")
    expected = drive(policy)
    accelerate(policy, sampler="chord", observations=observations(policy))
    handle, calibration = policy.para_policy, policy.para_policy.calibration
    drive(policy)
    loose = int(handle.last.rounds.max())
    assert accelerate(policy, sampler="chord", **TIGHT).para_policy is handle
    assert difference(drive(policy), expected) < 1e-4
    assert int(handle.last.rounds.max()) > loose
    assert handle.calibration is calibration
    policy.para_policy.undo()
    assert "conditional_sample" not in vars(policy.diffusion)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", ["lerobot", "original transformer"])
def test_copies_are_accelerated_on_their_own(kind: str, how: str) -> None:
    policy = make(kind)
    expected = drive(policy)
    accelerate(policy, sampler="chord", observations=observations(policy), **TIGHT)
    copied = copy.deepcopy(policy) if how == "deepcopy" else pickle.loads(pickle.dumps(policy))
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert difference(drive(copied), expected) > 0.1
    assert difference(drive(policy), expected) < 1e-4
    assert copied.para_policy is not policy.para_policy
    copied.para_policy.undo()
    assert isinstance(policy.para_policy, Acceleration)
    rounds = int(policy.para_policy.last.rounds.max())
    assert 0 < rounds < 40


@pytest.mark.parametrize("kind", ["lerobot", "original unet"])
def test_double_precision(kind: str) -> None:
    policy = make(kind).double()
    noise = torch.randn(1, peers.HISTORY * peers.OBSERVED, dtype=torch.float64)
    owner = policy.diffusion if kind == "lerobot" else policy
    data = torch.zeros(1, peers.HORIZON, peers.ACTIONS, dtype=torch.float64)
    arguments = (1,) if kind == "lerobot" else (data, data.bool())

    def draw() -> Tensor:
        torch.manual_seed(3)
        with torch.no_grad():
            return owner.conditional_sample(*arguments, global_cond=noise)

    expected = draw()
    accelerate(policy, tolerance=1e-10)
    found = draw()
    assert found.dtype == torch.float64
    assert difference(found, expected) < 1e-5  # diffusers' own coefficients are float32


def test_half_precision_is_solved_in_float32() -> None:
    policy = make("lerobot").bfloat16()
    condition = torch.randn(2, peers.HISTORY * peers.OBSERVED).bfloat16()

    def draw() -> Tensor:
        torch.manual_seed(3)
        with torch.no_grad():
            return policy.diffusion.conditional_sample(2, global_cond=condition)

    expected = draw()
    found = (accelerate(policy), draw())[1]
    assert found.dtype == torch.bfloat16
    assert policy.para_policy.last.sample.dtype == torch.float32
    assert difference(found.float(), expected.float()) < 0.1


def test_autocast_of_the_caller_reaches_the_network_only() -> None:
    policy = make("original unet")
    seen: list[torch.dtype] = []
    policy.model.outer.register_forward_hook(lambda m, a, output: seen.append(output.dtype))

    def draw(seed: int) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
            return drive(policy, seed=seed, chunks=2)

    expected, other = draw(1), draw(2)

    def sampler(*arguments: Any, **options: Any) -> samplers.SampleResult:
        assert not torch.is_autocast_enabled("cpu")
        return samplers.get("x0")(*arguments, **options)

    accelerate(policy, sampler)
    seen.clear()
    found = draw(1)
    assert set(seen) == {torch.bfloat16}
    assert found.dtype == expected.dtype
    assert difference(found, expected) < 0.1 < difference(other, expected)
    assert policy.para_policy.last.converged.all()


@pytest.mark.parametrize("shape", [(1, 24, 7), (2, 8, 2)])
@pytest.mark.parametrize("eta", [None, 1.0])
def test_noise_under_autocast_is_drawn_as_the_loop_draws_it(
    shape: tuple[int, ...], eta: float | None
) -> None:
    """In half precision, and torch draws other numbers there: all of them, or (2.13) the last few."""
    made = peers.scheduler("ddpm" if eta is None else "ddim")
    step = {} if eta is None else {"eta": eta}
    torch.manual_seed(0)
    layer = nn.Linear(shape[-1], shape[-1])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return layer(x)

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(shape, generator=generator)
        made.set_timesteps(40)
        for t in made.timesteps:
            x = made.step(denoise(x, t), t, x, generator=generator, **step).prev_sample
        left = generator.get_state()
        generator.manual_seed(4)
        found = sample(denoise, made, shape, tolerance=1e-4, generator=generator, **step).sample
    assert torch.equal(generator.get_state(), left)
    assert difference(found, x) < 0.1


@pytest.mark.parametrize("first", ["compile", "accelerate"])
def test_a_policy_may_be_compiled(first: str) -> None:
    """As `lerobot-rollout` compiles `predict_action_chunk`; the solve itself is not traced."""
    policy = make("lerobot", peers.scheduler("ddim"))
    policy.diffusion.num_inference_steps = 6
    condition = torch.randn(2, peers.HISTORY * peers.OBSERVED)

    def chunk(condition: Tensor) -> Tensor:
        return policy.diffusion.conditional_sample(len(condition), global_cond=condition) * 1.0

    def draw(predict: Callable[[Tensor], Tensor]) -> Tensor:
        torch.manual_seed(3)
        return predict(condition).detach()

    expected = draw(chunk)
    if first == "accelerate":
        accelerate(policy, **TIGHT)
    compiled = torch.compile(chunk, backend="eager")
    draw(compiled)
    if first == "compile":
        accelerate(policy, **TIGHT)
    assert difference(draw(compiled), expected) < 1e-4
    assert policy.para_policy.last.converged.all()


def test_gradients_do_not_flow() -> None:
    policy = accelerate(make("original unet"))
    action = policy.predict_action(observations(policy, 1)[0])["action"]
    assert not action.requires_grad
    action.add_(1.0)  # nobody else looks at it
    assert not torch.equal(policy.para_policy.last.sample[:, 1:5], action)


def test_chord_takes_fewer_rounds_than_x0() -> None:
    policy = make("lerobot")
    rounds = {}
    for sampler in ("x0", "chord"):
        accelerate(policy, sampler=sampler, observations=observations(policy), **TIGHT)
        drive(policy)
        rounds[sampler] = float(policy.para_policy.last.rounds.double().mean())
    assert rounds["chord"] < rounds["x0"]
    assert policy.para_policy.last.error_bound.isfinite().all()


def test_calibration_does_not_sample_and_leaves_the_episode_reset() -> None:
    policy = make("lerobot")
    drive(policy)
    calls: list[int] = []
    policy.diffusion.unet.register_forward_hook(lambda *a: calls.append(1))
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="no observations"):
        accelerate(policy, sampler="chord", observations=[])
    assert calls == []
    accelerate(policy, sampler="chord", observations=observations(policy))
    assert torch.equal(torch.get_rng_state(), state)
    assert not policy._observed
    assert not policy._actions


def test_chord_from_what_the_policy_saw() -> None:
    expected = drive(make("lerobot"))
    policy = make("lerobot")
    with pytest.warns(UserWarning, match=r"not calibrated for ddpm with 40 steps.*so far 0"):
        accelerate(policy, sampler="chord", **TIGHT)
    assert difference(drive(policy), expected) < 1e-4
    assert policy.para_policy.calibration is None
    drive(policy, chunks=12)
    accelerate(policy, sampler="chord")
    assert policy.para_policy.calibration.steps == 40
    drive(policy)
    assert policy.para_policy.last.converged.all()


def test_calibration_file(tmp_path: Path) -> None:
    policy = make("lerobot")
    with pytest.raises(InputError, match=f"'{tmp_path}' holds no calibration.*ddpm with 40 steps"):
        accelerate(policy, sampler="chord", calibration=tmp_path)
    assert not hasattr(policy, "para_policy")
    accelerate(policy, sampler="chord", observations=observations(policy), calibration=tmp_path)
    measured = policy.para_policy.calibration

    again = accelerate(make("lerobot"), sampler="chord", calibration=str(tmp_path), **TIGHT)
    assert torch.equal(again.para_policy.calibration.matrices, measured.matrices)
    assert again.para_policy.calibration.variants == measured.variants
    assert difference(drive(again), drive(make("lerobot"))) < 1e-4

    with pytest.raises(CheckpointError, match="other weights"):
        accelerate(make("lerobot", seed=1), sampler="chord", calibration=tmp_path)
    other = make("lerobot", peers.scheduler(clip_sample=False))
    with pytest.raises(CheckpointError, match="other noise_scheduler"):
        accelerate(other, sampler="chord", calibration=tmp_path)


def test_broken_calibration_file(tmp_path: Path) -> None:
    policy = make("lerobot")
    accelerate(policy, sampler="chord", observations=observations(policy), calibration=tmp_path)
    path = tmp_path / "calibration" / "ddpm_40.safetensors"
    save_file({"matrices": load_file(path)["matrices"]}, path)
    with pytest.raises(CheckpointError, match="no calibration"):
        accelerate(make("lerobot"), sampler="chord", calibration=tmp_path)
    path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="truncated"):
        accelerate(make("lerobot"), sampler="chord", calibration=tmp_path)


def test_calibration_of_a_compiled_network_is_that_of_the_network(tmp_path: Path) -> None:
    policy = make("lerobot")
    accelerate(policy, sampler="chord", observations=observations(policy), calibration=tmp_path)
    compiled = make("lerobot")
    compiled.diffusion.unet = torch.compile(compiled.diffusion.unet, backend="eager")
    assert any("_orig_mod" in name for name in compiled.state_dict())
    accelerate(compiled, sampler="chord", calibration=tmp_path, **TIGHT)
    assert difference(drive(compiled, chunks=1), drive(make("lerobot"), chunks=1)) < 1e-4


def test_what_a_policy_saw_before_it_was_moved_calibrates_nothing() -> None:
    """Conditions of two types, or on two devices, are no batch."""
    policy = accelerate(make("original unet"), **TIGHT)
    drive(policy, chunks=12)
    policy.double()
    chunk = torch.zeros(1, peers.HISTORY, peers.OBSERVED, dtype=torch.float64)
    policy.predict_action({"obs": chunk})
    with pytest.warns(UserWarning, match="after 12 chunks .so far 1."):
        accelerate(policy, sampler="chord")
    for _ in range(11):
        policy.predict_action({"obs": chunk})
    accelerate(policy, sampler="chord")
    policy.predict_action({"obs": chunk})
    assert policy.para_policy.last.error_bound.isfinite().all()


@pytest.mark.parametrize("sampler", ["chord", "auto"])
def test_a_calibration_is_forgotten_with_the_weights(sampler: str) -> None:
    """Its bounds were those of other weights, and were given on."""
    policy = make("lerobot")
    accelerate(policy, sampler=sampler, observations=observations(policy))
    handle = policy.para_policy
    drive(policy, chunks=2)
    assert handle.last.error_bound.isfinite().all()
    policy.load_state_dict(make("lerobot").state_dict())  # the same numbers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(policy)
    assert handle.last.error_bound.isfinite().all()

    policy.load_state_dict(make("lerobot", seed=1).state_dict())
    with pytest.warns(UserWarning, match="weights .* others .* there is no error_bound"):
        found = drive(policy)
    assert difference(found, drive(make("lerobot", seed=1))) < 3e-2
    assert handle.last.error_bound is None
    assert handle.calibration is None
    assert len(handle.seen) == 3  # conditions of the encoder as it was are none of this one
    accelerate(policy, sampler=sampler, observations=observations(policy))
    drive(policy)
    assert handle.last.error_bound.isfinite().all()


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ({}, peers.HISTORY - 1),
        ({"oa_step_convention": True}, peers.HISTORY - 1),
        ({"oa_step_convention": False}, peers.HISTORY),
        ({"oa_step_convention": False, "pred_action_steps_only": True}, 0),
        ({"pred_action_steps_only": False}, peers.HISTORY - 1),
    ],
)
def test_the_first_action_is_where_the_original_takes_it(said: dict[str, bool], first: int) -> None:
    """Where the chunk is no longer than what is executed, real-time chunking froze too much of it."""
    policy = accelerate(make("original unet"), **TIGHT)
    for name, value in said.items():
        setattr(policy, name, value)
    whole = policy.para_policy
    drive(policy, chunks=1)
    before = whole.last.sample
    whole.follow(2, frozen=1)
    drive(policy, chunks=1, seed=2)
    kept = (whole.last.sample[:, :-2] - before[:, 2:]).abs().amax(dim=(0, 2)) < 1e-4
    assert kept.tolist() == [place < first + 1 for place in range(peers.HORIZON - 2)]


@pytest.mark.parametrize("kind", ["lerobot", "original unet"])
def test_a_scheduler_that_is_configured_anew_is_followed(kind: str) -> None:
    def changed(policy: Any) -> Any:
        owner = policy.diffusion if kind == "lerobot" else policy
        owner.noise_scheduler.register_to_config(clip_sample=False, prediction_type="sample")
        return policy

    policy = accelerate(make(kind), **TIGHT)
    drive(policy)
    assert difference(drive(changed(policy)), drive(changed(make(kind)))) < 1e-4


def test_noise_levels_that_were_changed_by_hand_are_refused() -> None:
    policy = make("original unet")
    policy.noise_scheduler.alphas_cumprod = policy.noise_scheduler.alphas_cumprod**2
    with pytest.raises(InputError, match="alphas_cumprod is not what its configuration gives"):
        accelerate(policy)


def test_chord_after_the_step_count_changed() -> None:
    policy = make("original unet")
    accelerate(policy, sampler="chord", observations=observations(policy))
    policy.num_inference_steps = 20
    with pytest.raises(InputError, match=r"calibrated for ddpm with 40 steps.*20 steps"):
        drive(policy)
    with pytest.warns(UserWarning, match="not calibrated for ddpm with 20 steps"):
        accelerate(policy, sampler="chord")
    drive(policy)
    accelerate(policy, sampler="chord", observations=observations(policy))
    drive(policy)


def test_a_sampler_object_is_taken_as_it_is() -> None:
    policy = make("lerobot")
    expected = drive(policy)
    accelerate(policy, samplers.get("x0", tolerance=1e-5, window=20))
    assert difference(drive(policy), expected) < 1e-4
    with pytest.raises(InputError, match="options \\['tolerance'\\]"):
        accelerate(policy, samplers.get("x0"), tolerance=1e-3)
    accelerate(policy, "asd")
    assert difference(drive(policy), expected) > 1e-2  # another draw, by its nature


def test_in_painting_and_local_conditions_are_refused() -> None:
    policy = accelerate(make("original unet"))
    data = torch.zeros(1, peers.HORIZON, peers.ACTIONS)
    mask = torch.zeros_like(data, dtype=torch.bool)
    condition = torch.zeros(1, peers.HISTORY * peers.OBSERVED)
    policy.conditional_sample(data, mask, global_cond=condition)
    mask[0, 0, 1] = True
    with pytest.raises(InputError, match=r"condition_mask holds True at 1 of 16 places.*undo"):
        policy.conditional_sample(data, mask, global_cond=condition)
    with pytest.raises(InputError, match="local_cond is given"):
        policy.conditional_sample(data, mask & False, local_cond=data)
    with pytest.raises(InputError, match=r"options \['predict_epsilon'\] of scheduler.step"):
        policy.conditional_sample(data, mask & False, global_cond=condition, predict_epsilon=True)


def test_random_networks_are_refused() -> None:
    policy = peers.OriginalTransformerPolicy(dropout=0.3)
    accelerate(policy)
    with pytest.raises(InputError, match=r"model is in training mode.*policy.eval"):
        drive(policy)
    drive(policy.eval())
    drive(accelerate(peers.OriginalTransformerPolicy(dropout=0.0)).train())


def test_actions_with_nan_do_not_leave() -> None:
    policy = accelerate(make("lerobot"))
    nan = {"observation.state": torch.full((1, peers.OBSERVED), torch.nan)}
    with pytest.raises(NonFiniteError, match="must not be executed"):
        policy.select_action(nan)
    with pytest.raises(InputError, match="conditions that hold NaN"):
        accelerate(policy, sampler="chord", observations=[nan])


@pytest.mark.parametrize("target", [*SCHEDULERS, *PARALLEL])
@pytest.mark.parametrize("trained", SCHEDULERS)
def test_a_scheduler_may_be_replaced_as_diffusers_does_it(trained: str, target: str) -> None:
    """`from_config` keeps options that the new class does not know."""
    makers = {**SCHEDULERS, **PARALLEL}
    options = {"num_train_timesteps": 40, "beta_schedule": "squaredcos_cap_v2"}
    if trained != "dpmsolver++":
        options |= {"clip_sample": True, "clip_sample_range": 1.0}
    config = makers[trained](**options).config
    extra = {"lambda_min_clipped": -5.1} if target == "dpmsolver++" else {}

    def swapped() -> Any:
        policy = make("lerobot")
        policy.diffusion.noise_scheduler = makers[target].from_config(config, **extra)
        policy.diffusion.num_inference_steps = 10
        return policy

    expected = drive(swapped())
    found = drive(accelerate(swapped(), **TIGHT))
    assert float((found - expected).abs().max()) < 1e-4


class Other(nn.Module):
    """A policy of another kind: LeRobot's multi-task DiT has such a method."""

    def conditional_sample(self, model: Any, batch_size: int, conditioning_vec: Tensor) -> Tensor:
        raise NotImplementedError


def test_unknown_objects_are_refused_with_what_was_looked_for() -> None:
    with pytest.raises(InputError) as refused:
        accelerate(Other())
    for part in (
        "test_accelerate.Other",
        "no LeRobot DiffusionPolicy (no attribute diffusion)",
        "takes (model, batch_size, conditioning_vec), expected (condition_data, condition_mask, cond,",
        "para_policy.sample",
    ):
        assert part in str(refused.value)
    policy = make("lerobot")
    del policy.diffusion.unet
    with pytest.raises(InputError, match=r"no attribute diffusion\.unet"):
        accelerate(policy)
    policy = make("lerobot")
    policy.diffusion.conditional_sample = Other().conditional_sample
    with pytest.raises(InputError, match=r"diffusion\.conditional_sample takes \(model,"):
        accelerate(policy)
    with pytest.raises(InputError, match=r"a builtins\.int.*no method conditional_sample"):
        accelerate(3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "fast"}, "unknown sampler 'fast'"),
        ({"sampler": "x0", "order": 2}, r"no option \['order'\]"),
        ({"sampler": "x0", "tolerance": -1.0}, "tolerance is -1.0"),
        ({"sampler": 3}, "sampler is 3"),
        ({"steps": 41}, "num_steps is 41"),
        ({"scheduler": "euler"}, "unknown scheduler 'euler'"),
        ({"sampler": "chord", "observations": [torch.zeros(3)]}, "an observation is a Tensor"),
        ({"sampler": "chord", "observations": {"a": 1}}, "an observation is a str"),
    ],
)
def test_bad_settings_leave_the_policy_as_it_was(given: dict[str, Any], message: str) -> None:
    policy = make("lerobot")
    names = set(vars(policy.diffusion))
    with pytest.raises(InputError, match=message):
        accelerate(policy, **given)
    assert set(vars(policy.diffusion)) == names
    assert not hasattr(policy, "para_policy")


@pytest.mark.parametrize("given", [{"observations": []}, {"tolerance": -1.0}])
def test_bad_settings_leave_the_settings_before(given: dict[str, Any]) -> None:
    policy = accelerate(make("lerobot"), **TIGHT)
    expected = drive(policy)
    rounds = policy.para_policy.last.rounds
    with pytest.raises(InputError):
        accelerate(policy, **given)
    assert torch.equal(drive(policy), expected)
    assert torch.equal(policy.para_policy.last.rounds, rounds)


def test_unsupported_schedulers_are_refused() -> None:
    for made in (EulerDiscreteScheduler(), object()):
        policy = make("lerobot")
        policy.diffusion.noise_scheduler = made
        with pytest.raises(InputError, match=type(made).__name__):
            accelerate(policy)
