"""From observations to actions, and every way in which that can be asked for wrongly."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, Noise, load_policy, samplers
from para_policy.errors import InputError, NonFiniteError
from para_policy.inference.device import check_device
from para_policy.samplers import RoundInfo
from tests.checkpoint import random_observations

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Observations = dict[str, np.ndarray]
BATCH = 5

UNTRAINED = [name for name in samplers.names() if name != "pcm"]


def observations(batch: int = BATCH, seed: int = 0) -> Observations:
    return random_observations(batch, seed)


def one(obs: Observations, i: int = 0) -> Observations:
    return {name: value[i] for name, value in obs.items()}


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        (sampler, scheduler)
        for sampler in UNTRAINED
        for scheduler in (None, "ddpm", "ddim", "dpmsolver++")
        if sampler != "asd" or scheduler in (None, "ddpm")
    ],
)
def test_one_observation_gives_the_row_of_the_batch(
    policy: DiffusionPolicy, sampler: str, scheduler: str | None
) -> None:
    obs, seeds = observations(), [11, 12, 13, 14, 15]
    options: dict[str, Any] = {"sampler": sampler, "scheduler": scheduler, "steps": 8}
    batched = policy.sample(obs, seed=seeds, **options)
    assert batched.actions.shape == (BATCH, 8, 2)
    assert batched.prediction.shape == batched.sample.shape == (BATCH, 16, 2)
    for i, seed in enumerate(seeds):
        alone = policy.sample(one(obs, i), seed=seed, **options)
        np.testing.assert_allclose(alone.sample, batched.sample[i], atol=1e-4)
        assert alone.stats.rounds == batched.stats.rounds[i]
        assert alone.stats.evals == batched.stats.evals[i]


def test_actions_are_the_part_of_the_prediction_that_begins_now(policy: DiffusionPolicy) -> None:
    result = policy.sample(one(observations()))
    assert result.actions.shape == (8, 2)
    assert result.actions.dtype == result.prediction.dtype == result.sample.dtype == np.float32
    first = policy.config.n_obs_steps - 1
    np.testing.assert_array_equal(result.actions, result.prediction[first : first + 8])


def test_the_prediction_is_the_sample_in_physical_units(policy: DiffusionPolicy) -> None:
    result = policy.sample(one(observations()))
    np.testing.assert_allclose(result.prediction, (result.sample + 1) * 256, rtol=1e-5, atol=1e-3)
    assert np.abs(result.sample).max() <= 1  # the last step returns the clipped prediction


def test_statistics_are_scalars_for_one_and_arrays_for_many(policy: DiffusionPolicy) -> None:
    alone = policy.sample(one(observations()), sampler="paradigms").stats
    assert isinstance(alone.rounds, int)
    assert isinstance(alone.evals, int)
    assert isinstance(alone.residual, float)
    assert alone.converged is True
    assert alone.status == "converged"
    assert alone.residuals.shape == (alone.rounds,)
    assert alone.wall_s > 0
    many = policy.sample(observations(), sampler="paradigms", seed=range(BATCH)).stats
    assert many.rounds.shape == many.evals.shape == many.residual.shape == (BATCH,)
    assert many.converged.all()
    assert many.status == ["converged"] * BATCH
    assert many.residuals.shape == (many.rounds.max(), BATCH)


@pytest.mark.parametrize("sampler", UNTRAINED)
def test_sampling_is_deterministic_in_observation_and_seed(
    policy: DiffusionPolicy, sampler: str
) -> None:
    obs = one(observations())
    torch.manual_seed(1)
    first = policy.sample(obs, sampler=sampler, seed=3)
    torch.manual_seed(2)  # global generators have no say
    np.testing.assert_array_equal(first.sample, policy.sample(obs, sampler=sampler, seed=3).sample)
    assert not np.array_equal(first.sample, policy.sample(obs, sampler=sampler, seed=4).sample)
    other = one(observations(seed=1))
    assert not np.array_equal(first.sample, policy.sample(other, sampler=sampler, seed=3).sample)


@pytest.mark.parametrize(
    "seeds", [[1, 2], (1, 2), range(1, 3), np.array([1, 2]), [np.int64(1), np.uint32(2)]], ids=repr
)
def test_seeds_may_be_any_sequence_of_integers(policy: DiffusionPolicy, seeds: Any) -> None:
    expected = policy.sample(observations(2), seed=[1, 2])
    result = policy.sample(observations(2), seed=seeds)
    np.testing.assert_array_equal(result.sample, expected.sample)


def test_a_numpy_integer_is_one_seed(policy: DiffusionPolicy) -> None:
    obs = one(observations())
    expected = policy.sample(obs, seed=7).sample
    np.testing.assert_array_equal(policy.sample(obs, seed=np.int64(7)).sample, expected)


def test_the_same_parts_put_together_by_hand_give_the_same_sample(
    policy: DiffusionPolicy,
) -> None:
    obs = observations(2)
    process = policy.process("ddim", 8)
    noise = Noise.from_seeds([4, 5], (16, 2), process.num_steps)
    by_hand = samplers.get("paradigms", window=5)(policy.denoiser(obs), process, noise)
    sampler = samplers.get("paradigms", window=5)
    result = policy.sample(obs, sampler=sampler, scheduler="ddim", steps=8, seed=[4, 5])
    np.testing.assert_array_equal(result.sample, by_hand.sample.numpy())


def test_the_order_of_names_and_extra_observations_do_not_matter(policy: DiffusionPolicy) -> None:
    obs = one(observations())
    mixed = {"camera": np.full(3, np.nan), **dict(reversed(obs.items()))}
    np.testing.assert_array_equal(policy.sample(obs).sample, policy.sample(mixed).sample)


def test_a_callback_sees_the_rounds(policy: DiffusionPolicy) -> None:
    seen: list[RoundInfo] = []
    result = policy.sample(one(observations()), sampler="paradigms", callback=seen.append)
    assert len(seen) == result.stats.rounds


def test_steps_choose_the_number_of_network_calls(policy: DiffusionPolicy) -> None:
    obs = one(observations())
    assert policy.sample(obs).stats.rounds == 20
    assert policy.sample(obs, scheduler="ddim", steps=5).stats.rounds == 5
    assert policy.process("ddim", 5) is policy.process("ddim", 5)


def test_a_step_count_that_a_solver_cannot_take_says_so(policy: DiffusionPolicy) -> None:
    """DPM-Solver's spacing repeats noise levels when it is asked for every training step."""
    with pytest.raises(InputError, match=r"num_steps|fewer steps"):
        policy.sample(one(observations()), scheduler="dpmsolver++")


def without(name: str) -> Observations:
    return {key: value for key, value in one(observations()).items() if key != name}


def with_value(value: Any) -> dict[str, Any]:
    return {**one(observations()), "agent_pos": value}


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (without("agent_pos"), {}, "'agent_pos' is missing.*environment_state"),
    "empty": ({}, {}, "is missing"),
    "narrow": (with_value(np.zeros((2, 1))), {}, r"'agent_pos' has shape \(2, 1\).*\(2, 2\)"),
    "short history": (with_value(np.zeros((1, 2))), {}, r"\(1, 2\).*expected \(2, 2\)"),
    "flat": (with_value(np.zeros(4)), {}, "has shape"),
    "batch for one seed": (observations(), {}, "has shape"),
    "one for many seeds": (one(observations()), {"seed": [1]}, "because seed is a sequence"),
    "too few seeds": (observations(3), {"seed": [1, 2]}, "2 seeds for 3"),
    "no seeds": (observations(0), {"seed": []}, "seeds"),
    "different batches": (
        {**observations(3), "agent_pos": np.zeros((2, 2, 2))},
        {"seed": [1, 2, 3]},
        "agent_pos|3 seeds for 2",
    ),
    "NaN": (with_value(np.array([[0, 1], [np.nan, 2]])), {}, "'agent_pos' holds NaN"),
    "infinity": (with_value(np.array([[0, 1], [np.inf, 2]])), {}, "'agent_pos' holds NaN or inf"),
    "beyond float32": (with_value(np.full((2, 2), 1e39)), {}, "'agent_pos' holds NaN or inf"),
    "text": (with_value([["a", "b"], ["c", "d"]]), {}, "'agent_pos' is not numeric"),
    "ragged": (with_value([[1, 2], [3]]), {}, "'agent_pos' is not numeric"),
    "nothing": (with_value(None), {}, "'agent_pos'"),
    "sampler": (one(observations()), {"sampler": "heun"}, "unknown sampler 'heun'"),
    "scheduler": (one(observations()), {"scheduler": "euler"}, "unknown scheduler 'euler'"),
    "no steps": (one(observations()), {"steps": 0}, "num_steps is 0"),
    "too many steps": (one(observations()), {"steps": 21}, "num_steps is 21.*20"),
    "seed": (one(observations()), {"seed": 1.5}, "seed"),
}


@pytest.mark.parametrize(("obs", "options", "message"), BAD.values(), ids=BAD)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_bad_input_is_refused_by_name(
    policy: DiffusionPolicy, obs: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        policy.sample(obs, **options)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "cpu:banana", "mps", ""])
def test_a_device_that_cannot_be_used_is_refused(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an mps device")
    with pytest.raises(InputError, match=r"device .*available: cpu"):
        check_device(device)


@pytest.mark.parametrize("sampler", UNTRAINED)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_actions_that_are_not_finite_are_never_returned(
    policy: DiffusionPolicy, sampler: str, bad: float
) -> None:
    policy.network.final_conv[1].bias.fill_(bad)
    with pytest.raises(NonFiniteError, match="must not be executed"):
        policy.sample(one(observations()), sampler=sampler)


def test_actions_that_overflow_in_physical_units_are_never_returned(
    policy: DiffusionPolicy,
) -> None:
    policy.normalizers["action"].scale.fill_(1e-39)
    with pytest.raises(NonFiniteError, match="beyond float32 in physical units"):
        policy.sample(one(observations()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("sampler", ["sequential", "collocation"])
def test_defaults_of_the_host_program_change_nothing(
    tiny_directory: Path, sampler: str, dtype: torch.dtype
) -> None:
    """In double precision a seed was another sample, and a policy that was loaded then could not act;
    in half precision its weights were rounded."""
    expected = load_policy(tiny_directory).sample(one(observations()), sampler=sampler, seed=1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = load_policy(tiny_directory).sample(one(observations()), sampler=sampler, seed=1)
    finally:
        torch.set_default_dtype(before)
    np.testing.assert_array_equal(found.sample, expected.sample)
    np.testing.assert_array_equal(found.stats.error_bound, expected.stats.error_bound)


def test_a_default_device_of_the_host_program_is_refused(
    policy: DiffusionPolicy, tiny_directory: Path
) -> None:
    """Tensors of a solve were made there, deep inside, beside those on the policy's device."""
    problem = policy.denoiser(observations()), policy.process("ddim", 8)
    noise = Noise.from_seeds(range(BATCH), (16, 2), 8)
    for call in (
        lambda: load_policy(tiny_directory),
        lambda: policy.sample(one(observations())),
        lambda: samplers.get("x0")(*problem, noise),
    ):
        with (
            torch.device("meta"),
            pytest.raises(InputError, match=r"default device is meta; .*'cpu'"),
        ):
            call()
    with torch.device("meta"), torch.device("cpu"):
        assert np.isfinite(policy.sample(one(observations())).actions).all()


@pytest.mark.parametrize("change", ["bfloat16", "double"])
def test_weights_that_were_rounded_where_they_are_are_refused(
    policy: DiffusionPolicy, change: str
) -> None:
    policy.sample(one(observations()))
    getattr(policy.network, change)()
    with pytest.raises(InputError, match=r"weights are torch.\w+ now; .* precision='bfloat16'"):
        policy.sample(one(observations()))


def test_weights_that_were_moved_where_they_are_are_refused(policy: DiffusionPolicy) -> None:
    policy.network.to("meta")
    with pytest.raises(InputError, match=r"weights are on meta now, and it was made for cpu"):
        policy.sample(one(observations()))


@pytest.mark.parametrize("sampler", ["sequential", "chord"])
def test_autocast_of_the_host_program_changes_nothing(
    policy: DiffusionPolicy, sampler: str
) -> None:
    """The engine's precision says what the network computes in; a bound was one to other numbers."""
    expected = policy.sample(one(observations()), sampler=sampler, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = policy.sample(one(observations()), sampler=sampler, seed=1)
    np.testing.assert_array_equal(found.sample, expected.sample)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))]
)
def test_a_copy_of_a_policy_in_use_acts_alike(policy: DiffusionPolicy, copied: Any) -> None:
    obs = one(observations())
    expected = policy.sample(obs, sampler="x0").sample
    np.testing.assert_array_equal(copied(policy).sample(obs, sampler="x0").sample, expected)


def test_the_network_is_frozen_and_in_evaluation_mode(policy: DiffusionPolicy) -> None:
    assert not policy.network.training
    assert not any(p.requires_grad for p in policy.network.parameters())
