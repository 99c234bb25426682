"""The Aloha scene: gym-aloha's own start states, rewards and physics, without a camera."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from para_policy.errors import InputError
from sim.aloha.env import ACTION_NAMES, STATE_INPUTS, Aloha, start_cube
from sim.aloha.task import ALOHA

HOME = np.array(2 * [0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.09984833])


def shaken(scene: Aloha, steps: int = 30) -> np.ndarray:
    """States (steps, 23) on the way of actions around the start pose."""
    random = np.random.default_rng(0)
    states = []
    for _ in range(steps):
        scene.step(HOME + random.normal(0.0, 0.1, 14))
        states.append(scene.state())
    return np.array(states)


def test_names_are_gym_alohas() -> None:
    from gym_aloha.constants import ACTIONS

    assert [
        name.replace("left_", "left_arm_").replace("right_", "right_arm_") for name in ACTION_NAMES
    ] == (ACTIONS)


def test_an_episode_is_gym_alohas_own(scene: Aloha) -> None:
    """Bit for bit, although theirs draws three cameras for each observation."""
    theirs = gymnasium.make(
        "gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos", disable_env_checker=True
    ).unwrapped
    found = scene.begin(7)
    theirs.reset(seed=7)
    np.testing.assert_array_equal(found["environment_state"][:3], start_cube(7)[:3])
    for action in HOME + np.random.default_rng(1).normal(0.0, 0.05, (3, 14)):
        observation, reward, *_ = theirs.step(action)
        result = scene.step(action)
        np.testing.assert_array_equal(result.observation["agent_pos"], observation["agent_pos"])
        assert result.score == reward
    state = theirs._env.physics.data.qpos
    np.testing.assert_array_equal(scene.state(), state)


def test_a_seed_fixes_the_episode_whatever_was_before(scene: Aloha) -> None:
    scene.begin(3)
    first = shaken(scene)
    scene.begin(4)
    assert not np.array_equal(shaken(scene), first)
    scene.begin(3)
    np.testing.assert_array_equal(shaken(scene), first)


def test_the_start_pose_lies_outside_of_the_action_space_and_is_held(scene: Aloha) -> None:
    scene.begin(0)
    assert np.abs(HOME).max() > 1.0  # gym-aloha's bounds
    for _ in range(50):
        result = scene.step(HOME)
    np.testing.assert_allclose(result.observation["agent_pos"], HOME, atol=0.02)


def test_an_empty_gripper_ends_at_a_tenth_and_almost_open(scene: Aloha) -> None:
    for command, expected in ((0.0, 0.100), (1.0, 0.975)):
        scene.begin(0)
        action = HOME.copy()
        action[[6, 13]] = command
        for _ in range(60):
            result = scene.step(action)
        assert result.observation["agent_pos"][[6, 13]] == pytest.approx(expected, abs=5e-3)


def test_a_snapshot_restores_the_course(scene: Aloha) -> None:
    scene.begin(5)
    shaken(scene)
    snapshot = scene.snapshot()
    expected = shaken(scene)
    scene.restore(snapshot)
    np.testing.assert_array_equal(shaken(scene), expected)
    scene.restore(snapshot)
    scene.physics.data.qacc_warmstart[:] = 0.0
    assert not np.array_equal(shaken(scene), expected)  # what the snapshot must hold


def test_place_shows_a_state(scene: Aloha) -> None:
    scene.begin(5)
    states = shaken(scene)
    seen = scene.place(states[10])
    np.testing.assert_array_equal(scene.state(), states[10])
    np.testing.assert_array_equal(seen["environment_state"], states[10][16:])


def test_cameras_are_drawn_only_when_asked(scene: Aloha, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []
    monkeypatch.setattr(scene.physics, "render", lambda *given, **_: drawn.append(given))
    scene.begin(0)
    scene.step(HOME)
    assert not drawn


def test_images_are_seen_without_a_display() -> None:
    name = "observation.images.top"
    seen = Aloha({name: (3, 24, 32), "observation.state": (14,)}).begin(0)
    assert seen[name].shape == (3, 24, 32)
    assert seen[name].dtype == np.uint8
    red = seen[name][0].astype(int) - seen[name][1]
    assert red.max() > 100  # the cube


@pytest.mark.parametrize("chosen", ["disable", "glx"])
def test_where_nothing_can_draw_one_line_says_so_before_the_episodes(chosen: str) -> None:
    """In a process of its own, as MuJoCo reads the variable once."""
    code = "import sys; from para_policy.terminal import run; from sim.aloha.task import ALOHA; "
    code += "sys.exit(run(ALOHA.check_drawing))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": chosen},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 2, told.stderr
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: MuJoCo cannot draw here (")
    assert f"MUJOCO_GL = {chosen}; install EGL" in line


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seed(seed: int) -> None:
    with pytest.raises(InputError, match=str(seed)):
        start_cube(seed)


@pytest.mark.parametrize("action", [[0.0], [np.nan] * 14])
def test_unusable_action(scene: Aloha, action: list[float]) -> None:
    with pytest.raises(InputError, match="14 finite numbers"):
        scene.step(action)


def test_inputs_that_it_does_not_have() -> None:
    with pytest.raises(InputError, match=re.escape("no input 'agent_pos' of shape (2,)")):
        ALOHA.check_inputs({**STATE_INPUTS, "agent_pos": (2,)})


@pytest.mark.parametrize("size", [3.1, 1e300])
def test_arms_that_are_flung_to_and_fro_end_no_evaluation(scene: Aloha, size: float) -> None:
    def fling() -> list[float]:
        scene.begin(0)
        return [scene.step(np.full(14, size * (-1) ** step)).score for step in range(20)]

    assert set(fling()) == {0.0}
    there = scene.state()
    assert np.isfinite(there).all()
    fling()
    np.testing.assert_array_equal(scene.state(), there)
    scene.begin(0)
    for _ in range(20):
        scene.step(HOME)
    np.testing.assert_allclose(scene.joints(), HOME, atol=0.02, rtol=0)  # and nothing is left of it
