"""Start states, keypoints and steps of the PushT board."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv

from para_policy.errors import InputError
from para_policy.training.replay_buffer import ReplayBuffer
from sim.pusht.env import KEYPOINTS, STATE_INPUTS, PushT, legacy_start_state
from sim.pusht.task import PUSHT
from tests.training.demonstrations import real_demonstrations

# Eight vertices of the T in its own frame, in gym-pusht's order; config/training/pusht_state.yaml has them.
LOCAL_KEYPOINTS = np.array(
    [[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]], float
)

# Drawn by the original project's reset: agent x, y, block x, y, angle.
GOLDEN = {
    0: (222, 97, 217, 292, 3.0079994677),
    42: (152, 398, 370, 206, -0.1642372254),
    100000: (235, 124, 335, 128, -0.9049274284),
    100001: (365, 182, 275, 280, -1.0981131397),
    100049: (143, 388, 104, 324, -13.4129879639),
}


def test_display_is_not_needed() -> None:
    assert os.environ["SDL_VIDEODRIVER"]


@pytest.mark.parametrize("seed", GOLDEN)
def test_legacy_states_are_those_of_the_original_project(seed: int) -> None:
    np.testing.assert_allclose(legacy_start_state(seed), GOLDEN[seed], atol=1e-9)


def test_legacy_state_equals_a_direct_draw() -> None:
    for seed in range(100000, 100050):
        random = np.random.RandomState(seed)
        drawn = [random.randint(50, 450), random.randint(50, 450)]
        drawn += [random.randint(100, 400), random.randint(100, 400)]
        drawn += [random.randn() * 2 * np.pi - np.pi]
        np.testing.assert_array_equal(legacy_start_state(seed), drawn)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seed(seed: int) -> None:
    with pytest.raises(InputError, match=str(seed)):
        legacy_start_state(seed)


def test_reset_sets_position_before_angle() -> None:
    """Turning about the centre of mass moves the block's origin: the original's `legacy_test`."""
    env = PushT()
    centre_of_mass = np.asarray(env._env.block.center_of_gravity)
    for seed in GOLDEN:
        wanted = legacy_start_state(seed)
        env.reset(wanted)
        c, s = np.cos(wanted[4]), np.sin(wanted[4])
        turned = np.array([[c, -s], [s, c]]) @ centre_of_mass
        expected = [*wanted[:2], *(wanted[2:4] + centre_of_mass - turned), wanted[4]]
        np.testing.assert_allclose(env.state(), expected, atol=1e-9)


def test_keypoints_are_a_rigid_transform_of_the_local_points() -> None:
    env = PushT()
    for seed in GOLDEN:
        env.reset(legacy_start_state(seed))
        for _ in range(20):
            observation = env.step([256.0, 256.0]).observation
            *agent, x, y, angle = env.state()
            c, s = np.cos(angle), np.sin(angle)
            expected = LOCAL_KEYPOINTS @ np.array([[c, s], [-s, c]]) + [x, y]
            found = observation["environment_state"].reshape(8, 2)
            np.testing.assert_allclose(found, expected, atol=1e-9)
            np.testing.assert_array_equal(observation["agent_pos"], agent)


def test_observations_are_float64() -> None:
    observation = PushT().reset(legacy_start_state(0))
    assert {name: (value.shape, value.dtype) for name, value in observation.items()} == {
        "environment_state": ((16,), np.float64),
        "agent_pos": ((2,), np.float64),
    }


def test_float32_actions_step_as_float64_ones() -> None:
    action = np.array([200.123, 310.456], dtype=np.float32)
    states = []
    for same in (action, action.astype(np.float64), action.tolist()):
        env = PushT()
        env.reset(legacy_start_state(100000))
        env.step(same)
        states.append(env.state())
    np.testing.assert_array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[0], states[2])


def test_place_is_exact_and_drawn() -> None:
    env, other = PushT(), PushT()
    env.reset(legacy_start_state(100000))
    for target in ([240.0, 160.0], [300.0, 150.0]):
        env.step(target)
    other.place(env.state())
    np.testing.assert_allclose(other.state(), env.state(), atol=1e-12)
    np.testing.assert_array_equal(other.image(96), env.image(96))


def test_success_at_the_goal() -> None:
    env = PushT()
    env.reset(legacy_start_state(0))
    env.place([50.0, 50.0, 256.0, 256.0, np.pi / 4])
    result = env.step([50.0, 50.0])
    assert result.score == pytest.approx(1.0)
    assert PUSHT.score.success(result.score)
    assert PUSHT.score.rewards([result.score]) == [1.0]


def test_reward_and_success_are_gym_pushts() -> None:
    """Around the place where both change, from the same coverage."""
    board, theirs = PushT(), PushTEnv(obs_type="state")
    found = set()
    for y in np.arange(256.0, 262.0, 0.25):
        goal = [50.0, 50.0, 256.0, y, np.pi / 4]
        theirs.reset(options={"reset_to_state": legacy_start_state(0)})
        theirs.block.angle, theirs.block.position = goal[4], tuple(goal[2:4])
        board.place(goal)
        _, reward, success, _, info = theirs.step(np.array([50.0, 50.0]))
        assert PUSHT.score.rewards(info["coverage"]) == reward
        assert PUSHT.score.success(info["coverage"]) == success
        found.add(bool(success))
    assert found == {True, False}


@pytest.mark.parametrize("size", [96, 240])
def test_image(size: int) -> None:
    env = PushT()
    env.reset(legacy_start_state(100000))
    image = env.image(size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1


@pytest.mark.parametrize("action", [[1.0, np.nan], [1.0], [[1.0, 2.0]], [np.inf, 0.0]])
def test_unusable_action(action: list[float]) -> None:
    with pytest.raises(InputError, match="2 finite numbers"):
        PushT().step(action)


def played(board: PushT) -> list[dict[str, np.ndarray]]:
    """Observations of an episode in which the agent pushes the block."""
    seen = [board.reset(legacy_start_state(100000))]
    return seen + [board.step(board.state()[2:4]).observation for _ in range(8)]


@pytest.mark.parametrize("name", ["image", "observation.image"])
@pytest.mark.parametrize("size", [(96, 96), (48, 64)])
def test_images_are_gym_pushts_own_observations(name: str, size: tuple[int, int]) -> None:
    other = PushTEnv(
        obs_type="pixels_agent_pos", observation_height=size[0], observation_width=size[1]
    )
    expected = [other.reset(options={"reset_to_state": legacy_start_state(100000)})[0]]
    for _ in range(8):
        expected.append(other.step(np.array(other.block.position))[0])
    seen = played(PushT({"agent_pos": (2,), name: (3, *size)}))
    for ours, theirs in zip(seen, expected, strict=True):
        assert ours[name].shape == (3, *size)
        assert ours[name].dtype == np.uint8
        np.testing.assert_array_equal(ours[name], np.moveaxis(theirs["pixels"], -1, 0))
        np.testing.assert_array_equal(ours["agent_pos"], theirs["agent_pos"])
    assert (seen[0][name] != seen[-1][name]).any()


def test_images_do_not_tell_the_last_action() -> None:
    """The agent's target is marked in what people watch, which the policy must not see."""
    board, red = PushT({"image": (3, 96, 96)}), np.array([255, 0, 0])
    image = played(board)[-1]["image"]
    assert not (np.moveaxis(image, 0, -1) == red).all(axis=-1).any()
    assert (board._env.render() == red).all(axis=-1).any()


def test_other_names_are_the_same_inputs() -> None:
    names = {
        "observation.environment_state": "environment_state",
        "observation.state": "agent_pos",
    }
    usual = played(PushT())
    other = played(PushT({name: STATE_INPUTS[same] for name, same in names.items()}))
    for expected, found in zip(usual, other, strict=True):
        assert list(found) == list(names)
        for name, same in names.items():
            np.testing.assert_array_equal(found[name], expected[same])


def test_the_originals_keypoints_move_with_the_block() -> None:
    board = PushT({"obs": (20,)})
    board.reset(legacy_start_state(100001))
    for _ in range(8):
        seen = board.step(board.state()[2:4]).observation["obs"]
        *agent, x, y, angle = board.state()
        c, s = np.cos(angle), np.sin(angle)
        local = (seen[:18].reshape(9, 2) - [x, y]) @ np.array([[c, -s], [s, c]])
        np.testing.assert_allclose(local, KEYPOINTS, atol=1e-9)
        np.testing.assert_array_equal(seen[18:], agent)
    # All lie on the T, which is 120 pixels wide and high, up to a pixel and a half.
    assert (KEYPOINTS.min(axis=0) > [-61.5, -2]).all()
    assert (KEYPOINTS.max(axis=0) < [61.5, 123.5]).all()


def test_the_originals_keypoints_are_the_recorded_ones() -> None:
    buffer = ReplayBuffer(real_demonstrations())
    states, recorded = buffer.array("state")[::50], buffer.array("keypoint")[::50]
    board = PushT({"obs": (20,)})
    seen = np.array([board.place(state)["obs"] for state in states])
    error = np.abs(seen[:, :18] - recorded.reshape(-1, 18)).max(axis=1)
    assert np.median(error) < 1e-4
    assert np.percentile(error, 95) < 0.1  # fast blocks were recorded less exactly


def test_nothing_is_drawn_for_a_policy_without_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = PushTEnv._draw
    monkeypatch.setattr(PushTEnv, "_draw", lambda env: drawn.append(1) or draw(env))
    played(PushT())
    assert not drawn
    played(PushT({"image": (3, 8, 8)}))
    assert len(drawn) == 9


@pytest.mark.parametrize(
    "inputs",
    [
        {"joints": (7,)},
        {"agent_pos": (3,)},
        {"obs": (40,)},
        {"agent_pos": (2,), "image": (96, 96, 3)},
        {"image": (1, 96, 96)},
        {"observation.images.top": (3, 96, 96)},
    ],
)
def test_inputs_that_the_board_does_not_have(inputs: dict[str, tuple[int, ...]]) -> None:
    name, shape = list(inputs.items())[-1]
    with pytest.raises(InputError, match=re.escape(f"no input '{name}' of shape {shape}")) as error:
        PushT(inputs)
    assert "environment_state (16,)" in str(error.value)
    assert "(3, height, width)" in str(error.value)
