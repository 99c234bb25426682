"""The scripted expert of the Aloha task."""

from __future__ import annotations

import numpy as np
import pytest

from sim.aloha.env import MAX_STEPS, Aloha
from sim.aloha.expert import Expert
from sim.aloha.kinematics import MAX_TURN, TOLERANCE, Arm


def played(scene: Aloha, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and actions of the expert's episode."""
    scene.begin(seed)
    expert = Expert(scene)
    rewards, actions = [], []
    for _ in range(MAX_STEPS):
        actions.append(expert.action(scene))
        rewards.append(scene.step(actions[-1]).score)
    assert expert.done
    return np.array(rewards), np.array(actions)


@pytest.mark.parametrize("seed", [0, 4])
def test_it_hands_the_cube_over_and_holds_it(scene: Aloha, seed: int) -> None:
    rewards, actions = played(scene, seed)
    assert rewards.max() == rewards[-50:].min() == 4
    joints = np.delete(actions, [6, 13], axis=1)
    assert np.abs(np.diff(joints, axis=0)).max() <= MAX_TURN + 1e-9
    again, same = played(scene, seed)
    np.testing.assert_array_equal(again, rewards)
    np.testing.assert_array_equal(same, actions)


def test_it_takes_a_cube_again_that_it_missed(scene: Aloha) -> None:
    scene.begin(2)
    expert = Expert(scene)
    rewards = []
    for step in range(MAX_STEPS + 60):
        if step == 80:  # the gripper closes by now
            moved = scene.state()
            moved[16] += 0.08
            scene.physics.data.qpos[:] = moved
        rewards.append(scene.step(expert.action(scene)).score)
    assert max(rewards[:150]) < 2
    assert min(rewards[-20:]) == 4


def test_an_arm_follows_a_target(scene: Aloha) -> None:
    scene.begin(0)
    arm = Arm(scene.physics.model.ptr, "right", scene.state())
    position, orientation = arm.pose()
    target = position + np.array([-0.05, 0.02, -0.03])
    for _ in range(20):
        arm.follow(target, orientation)
    assert arm.error < TOLERANCE
    np.testing.assert_allclose(arm.pose()[0], target, atol=TOLERANCE)
