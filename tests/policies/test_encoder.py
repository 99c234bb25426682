"""From observations to the condition: what is checked, normalised, encoded, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from para_policy.errors import InputError
from para_policy.networks.config import UnetConfig, VisionConfig
from para_policy.policies.build import VISION, build_network, build_vision
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.policy import DiffusionPolicy
from tests.checkpoint import tiny_config

SIZE = (3, 40, 48)


@pytest.fixture(scope="module", name="policy")
def image_policy_fixture() -> DiffusionPolicy:
    return image_policy()


def image_policy() -> DiffusionPolicy:
    """State, two cameras with an encoder each, and another state, in this order."""
    config = tiny_config(8).changed(
        {
            "inputs": {"state": (2,), "left": SIZE, "right": SIZE, "force": (1,)},
            "vision": VisionConfig(
                cameras=("left", "right"), num_keypoints=2, feature_dim=3, crop=(40, 40)
            ),
            "network": UnetConfig(down_dims=(8, 16), step_embed_dim=8, kernel_size=3),
        }
    )
    return make(config)


def make(config: PolicyConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    vision = build_vision(config)
    assert vision is not None
    state = dict(build_network(config).state_dict())
    state |= {VISION + name: value for name, value in vision.state_dict().items()}
    normalizers = {
        name: LinearNormalizer(torch.full((shape[0],), 2.0), torch.full((shape[0],), -1.0))
        for name, shape in {**config.inputs, "action": (config.action_dim,)}.items()
    }
    return DiffusionPolicy(config, state, normalizers)


def observation(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "state": rng.normal(size=(2, 2)),
        "left": rng.integers(0, 256, (2, *SIZE), dtype=np.uint8),
        "right": rng.integers(0, 256, (2, *SIZE), dtype=np.uint8),
        "force": rng.normal(size=(2, 1)),
    }


def condition(policy: DiffusionPolicy, obs: dict[str, Any]) -> torch.Tensor:
    found = policy.denoiser({name: np.asarray(value)[None] for name, value in obs.items()})
    assert found.condition is not None
    return found.condition[0]


def test_features_stand_in_the_order_of_the_inputs_step_by_step(policy: DiffusionPolicy) -> None:
    obs = observation()
    steps = condition(policy, obs).reshape(2, 2 + 3 + 3 + 1)
    np.testing.assert_allclose(steps[:, :2], 2 * obs["state"] - 1, rtol=1e-6)
    np.testing.assert_allclose(steps[:, 8:], 2 * obs["force"] - 1, rtol=1e-6)
    assert policy.vision is not None
    pixels = {name: torch.from_numpy(obs[name]).float() / 255 * 2 - 1 for name in ("left", "right")}
    encoded = policy.vision(pixels)
    torch.testing.assert_close(steps[:, 2:5], encoded["left"])
    torch.testing.assert_close(steps[:, 5:8], encoded["right"])
    assert not torch.allclose(encoded["left"], encoded["right"])


def test_bytes_and_fractions_are_the_same_picture(policy: DiffusionPolicy) -> None:
    obs = observation()
    fractions = {**obs, "left": obs["left"].astype(np.float32) / 255}
    torch.testing.assert_close(condition(policy, obs), condition(policy, fractions))


def test_a_white_image_that_torch_has_scaled_is_one(policy: DiffusionPolicy) -> None:
    """Its weights add up to 1 but for rounding."""
    white = torch.nn.functional.interpolate(
        torch.ones(2, 3, 480, 640), (84, 84), mode="bilinear", antialias=True
    )[..., : SIZE[1], : SIZE[2]]
    assert white.max() > 1
    expected = policy.sample({**observation(), "left": np.full((2, *SIZE), 255, np.uint8)}).sample
    found = policy.sample({**observation(), "left": white}).sample
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(InputError, match=r"values from 1\.02 to 1\.02; expected uint8"):
        policy.sample({**observation(), "left": np.full((2, *SIZE), 1.02)})


def test_the_memory_layout_of_an_image_changes_nothing(policy: DiffusionPolicy) -> None:
    obs = observation()
    transposed = np.moveaxis(np.ascontiguousarray(np.moveaxis(obs["left"], 1, -1)), -1, 1)
    assert not transposed.flags["C_CONTIGUOUS"]
    assert torch.equal(condition(policy, obs), condition(policy, {**obs, "left": transposed}))


@pytest.mark.parametrize("sampler", ["sequential", "x0"])
def test_cameras_are_encoded_once_for_a_chunk(policy: DiffusionPolicy, sampler: str) -> None:
    calls = []
    assert policy.vision is not None
    hook = policy.vision.register_forward_hook(lambda *given: calls.append(1))
    result = policy.sample(observation(), sampler=sampler)
    hook.remove()
    assert result.stats.rounds > 1
    assert len(calls) == 1
    assert 0 < result.stats.encode_s < result.stats.wall_s


def test_the_picture_matters_and_robots_of_a_batch_do_not_mix(policy: DiffusionPolicy) -> None:
    first, second = observation(), observation(1)
    both = {name: np.stack([first[name], second[name]]) for name in first}
    batch = policy.sample(both, seed=[3, 4])
    alone = policy.sample(second, seed=4)
    np.testing.assert_allclose(batch.actions[1], alone.actions, rtol=0, atol=1e-3)
    other = policy.sample({**second, "right": first["right"]}, seed=4)
    assert np.abs(other.actions - alone.actions).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"left": np.zeros((2, 40, 48, 3), np.uint8)}, r"'left' has shape .*channels first"),
        (
            {"left": np.zeros((2, 3, 96, 96), np.uint8)},
            r"\(2, 3, 96, 96\); expected \(2, 3, 40, 48\)",
        ),
        (
            {"left": np.full((2, *SIZE), 255, np.int64)},
            "holds values from 255 to 255; expected uint8",
        ),
        ({"left": np.full((2, *SIZE), -0.5)}, "holds values from -0.5"),
        ({"left": np.full((2, *SIZE), np.nan)}, "'left' holds NaN"),
        ({"left": np.full((2, *SIZE), "x")}, "'left' is not numeric"),
        ({"state": np.full((2, 2), np.inf)}, "'state' holds NaN or infinity"),
    ],
)
def test_what_is_no_such_observation_is_named(
    policy: DiffusionPolicy, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        policy.sample({**observation(), **change})
    missing = observation()
    del missing[next(iter(change))]
    with pytest.raises(InputError, match="is missing; got"):
        policy.sample(missing)


def test_an_encoder_that_could_see_nothing_is_refused(policy: DiffusionPolicy) -> None:
    """A ResNet makes one place of 32 pixels, and the mean of one place is always itself."""
    assert policy.config.vision is not None
    small = policy.config.vision.model_copy(update={"crop": (32, 32)})
    with pytest.raises(InputError, match="spatial softmax tells nothing"):
        make(policy.config.changed({"vision": small})).sample(observation())
    average = small.model_copy(update={"pooling": "average"})
    make(policy.config.changed({"vision": average})).sample(observation())


def test_encoders_round_to_tf32_only_where_the_network_may(policy: DiffusionPolicy) -> None:
    """By default torch lets convolutions do so."""
    assert policy.vision is not None
    assert torch.backends.cudnn.allow_tf32
    allowed: list[bool] = []
    hook = policy.vision.register_forward_hook(
        lambda *given: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    policy.sample(observation())
    hook.remove()
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32
