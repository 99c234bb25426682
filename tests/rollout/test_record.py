"""Observations of a policy that plays, in environments that tell what they were asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from para_policy import DiffusionPolicy, load_policy
from para_policy.errors import InputError
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.rollout import record
from para_policy.rollout.environment import Environment
from tests.checkpoint import save_tiny_checkpoint, tiny_config
from tests.checkpoints.golden import save as save_lerobot

HERE = "tests.rollout.environments"
PUSHT = "gym_pusht/PushT-v0:obs_type=environment_state_agent_pos"


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    """One that observes `agent_pos` only."""
    config = tiny_config(4).model_copy(update={"inputs": {"agent_pos": (2,)}})
    one = LinearNormalizer.fit(np.array([[0.0, 0.0], [9.0, 9.0]], np.float32))
    state = build_network(config).state_dict()
    return DiffusionPolicy(config, state, {"agent_pos": one, "action": one})


def test_every_call_of_the_network_is_kept_with_its_history(policy: DiffusionPolicy) -> None:
    """Episodes of 20 steps are three chunks of 8; eight are played at a time."""
    seen = record(policy, f"{HERE}:Counter-v0", count=24)["agent_pos"]
    assert seen.shape == (24, 2, 2)
    taken = seen[..., 1].reshape(3, 8, 2)
    assert (taken == np.array([[0, 0], [7, 8], [15, 16]])[:, None]).all()
    assert (seen[..., 0].reshape(3, 8, 2) == 200_000 + np.arange(8)[None, :, None]).all()


@pytest.mark.parametrize("count", [1, 5, 30])
def test_as_many_are_kept_as_were_asked_for(policy: DiffusionPolicy, count: int) -> None:
    """More episodes are begun where those at hand are too few; of more, some are left out evenly."""
    seen = record(policy, f"{HERE}:Counter-v0", count)["agent_pos"]
    assert len(seen) == count
    assert len(np.unique(seen.reshape(count, -1), axis=0)) == count


def test_an_environment_that_never_ends_is_left(policy: DiffusionPolicy) -> None:
    seen = record(policy, f"{HERE}:Counter-v0:length=none", count=6)["agent_pos"]
    assert seen[-1, -1, 1] == 16  # 24 observations and more: four times six


def test_names_and_frames_of_lerobot_are_understood(tmp_path: Path) -> None:
    camera = load_policy(save_lerobot("camera", tmp_path / "camera"))
    seen = record(camera, f"{HERE}:Camera-v0", count=8)
    assert seen["observation.state"].shape == (8, 2, 3)
    frames = seen["observation.image"]
    assert (frames.shape, frames.dtype) == ((8, 2, 3, 40, 48), np.uint8)
    assert (
        frames[:, :, :, 0, 5]
        == np.stack([np.ones((8, 2)), np.full((8, 2), 2), seen["observation.state"][..., 1]], -1)
    ).all()
    with pytest.raises(InputError, match=r"uint8 \(41, 48, 3\).*needs uint8 \(3, 40, 48\)"):
        record(camera, f"{HERE}:Camera-v0:size=41")


def test_pusht_is_played(tmp_path: Path) -> None:
    pytest.importorskip("gym_pusht")
    tiny = load_policy(save_tiny_checkpoint(tmp_path / "tiny", 4))
    seen = record(tiny, PUSHT, count=4)
    assert {name: values.shape for name, values in seen.items()} == {
        "environment_state": (4, 2, 16),
        "agent_pos": (4, 2, 2),
    }
    assert all((values >= 0).all() and (values <= 512).all() for values in seen.values())


def test_pusht_shows_its_board() -> None:
    pytest.importorskip("gym_pusht")
    inputs = {"observation.image": (3, 96, 96), "observation.state": (2,)}
    config = tiny_config().changed(
        {"inputs": inputs, "vision": {"cameras": ["observation.image"], "feature_dim": 8}}
    )
    environment = Environment("gym_pusht/PushT-v0:obs_type=pixels_agent_pos", config)
    seen = environment.reset(3)
    again, over = environment.step(np.array([200.0, 300.0], np.float32))
    environment.close()
    assert not over
    assert {name: values.shape for name, values in again.items()} == inputs
    assert len(np.unique(seen["observation.image"])) > 5
    assert (seen["observation.image"] != again["observation.image"]).any()


BAD = {
    "unknown": ("NoSuchGame-v0", "NoSuchGame-v0' does not work: .*gymnasium.make"),
    "empty": ("", "does not work"),
    "unknown package": ("nowhere_at_all/Game-v0", "nowhere_at_all.* does not work"),
    "unknown module": ("nowhere_at_all:Game-v0", "does not work: .*nowhere_at_all"),
    "options": (f"{HERE}:Counter-v0:speed=3", "does not work: .*speed"),
    "malformed": (f"{HERE}:Counter-v0:length=", "'length=' where OPTION=VALUE was expected"),
    "fails": (f"{HERE}:Counter-v0:fails_at=3", "does not work: the belt is broken"),
    "actions": (f"{HERE}:Counter-v0:width=3", r"takes actions of shape \(3,\); .* \(2,\)"),
    "no actions": ("CartPole-v1", r"takes actions of shape \(\)"),
    "inputs": ("MountainCarContinuous-v0", "takes actions of shape"),
}


@pytest.mark.parametrize(("environment", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_played_is_named(
    policy: DiffusionPolicy, environment: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        record(policy, environment, count=4)
    assert "\n" not in str(caught.value)


def test_what_is_not_observed_is_named(tmp_path: Path) -> None:
    tiny = load_policy(save_tiny_checkpoint(tmp_path / "tiny", 4))
    with pytest.raises(InputError, match=r"observes \['agent_pos'\].*'environment_state'"):
        record(tiny, f"{HERE}:Counter-v0")
