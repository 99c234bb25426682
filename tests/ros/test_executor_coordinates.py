"""Commands of actions that are no plain numbers, over DDS: angles and rotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from tests.ros.graph import Graph
from tests.ros.test_executor_commands import Rig

POSE_AND_GRIPPER = ["number 0-2", "rotation_vector 3-5", "number 6"]
ACTIONS = [[0.4, 0, 0.3, np.radians(178.0 * side), 0, 0, 0.1 * side] for side in (1, -1)]
"""Two poses whose rotations are 4 degrees apart, written on both sides of pi."""
MIXING: dict[str, Any] = {"interpolation": "linear", "blending": "linear"}


@pytest.fixture
def rig(graph: Graph) -> Callable[..., Rig]:
    return lambda **parameters: Rig(graph, Float64MultiArray, **parameters)


def sent(made: Rig, count: int) -> np.ndarray:
    made.graph.wait(lambda: len(made.commands) >= count)
    return np.array([command.data for command in made.commands])


def degrees_from_first(vectors: np.ndarray) -> np.ndarray:
    turns = Rotation.from_rotvec(vectors) * Rotation.from_rotvec(ACTIONS[0][3:6]).inv()
    return np.degrees(turns.magnitude())


def test_rotations_on_both_sides_of_pi_are_mixed_the_shorter_way(rig: Callable[..., Rig]) -> None:
    made = rig(
        coordinates=POSE_AND_GRIPPER,
        **MIXING,
        velocity_max=[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 10.0],  # 4 degrees in 0.1 s are 0.7 rad/s
        state_joints=list("xyzabcg"),
    )
    states = made.graph.talk(JointState, "joint_states")
    made.send(ACTIONS * 10)
    states.publish(JointState(name=list("xyzabcg"), position=ACTIONS[0]))
    sent(made, 10)
    made.send(ACTIONS[::-1] * 10)
    commands = sent(made, 40)
    degrees = degrees_from_first(commands[:, 3:6])
    assert degrees.max() < 4 + 1e-6
    assert np.ptp(degrees) > 1
    assert ((degrees > 0.1) & (degrees < 3.9)).any()
    assert np.abs(np.diff(commands[:, 3])).max() < np.radians(4)  # the numbers go on, too
    assert made.node._commander.violations == 0


def test_what_nobody_told_is_played_without_mixing_and_with_a_warning(
    graph: Graph, rig: Callable[..., Rig]
) -> None:
    heard = graph.warnings()
    made = rig(**MIXING)
    made.send(ACTIONS * 10)
    commands = sent(made, 20)
    assert {tuple(command) for command in commands} <= {tuple(action) for action in ACTIONS}
    graph.wait(lambda: any("coordinates all of the action are played without" in t for t in heard))


def test_no_warning_where_all_is_told_or_nothing_is_mixed(
    graph: Graph, rig: Callable[..., Rig]
) -> None:
    heard = graph.warnings()
    rig(interpolation="linear", coordinates=["number 0-5"], joint_names=list("abcdef"))
    rig()
    rig(blending="ensemble", coordinates=["number 0-4"], joint_names=list("abcdef"))
    graph.wait(lambda: heard)
    assert [text.split(" as ")[0] for text in heard] == [
        "coordinates 5 of the action are played without interpolation and blending,"
    ]


def test_six_numbers_of_a_rotation_are_orthonormal_when_they_are_sent(
    rig: Callable[..., Rig],
) -> None:
    made = rig(coordinates=["rotation_6d 0-5"], **MIXING)
    turns = [Rotation.from_euler("z", degrees, degrees=True) for degrees in (0, 40)]
    rows = [1.2 * turn.as_matrix()[:, :2].T.ravel() + 0.05 for turn in turns]
    made.send(rows * 10)
    columns = sent(made, 20).reshape(-1, 2, 3)
    products = columns @ columns.transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.tile(np.eye(2), (len(columns), 1, 1)), atol=1e-9)


def test_a_quaternion_of_length_zero_is_refused_by_name(rig: Callable[..., Rig]) -> None:
    made = rig(coordinates=["quaternion 0-3"])
    made.send([[0, 0, 0, 1], [0, 0, 0, 0]])
    made.wait_for(DiagnosticStatus.WARN, "action 1 has the quaternion", "of length 0")
    made.send([[0, 0, 0, 1, 5]] * 20)
    made.graph.wait(lambda: made.commands)
    assert list(made.commands[0].data) == [0, 0, 0, 1, 5]


def test_a_chunk_without_the_named_coordinates_is_refused(rig: Callable[..., Rig]) -> None:
    made = rig(coordinates=POSE_AND_GRIPPER)
    made.send([[0, 0, 0]] * 20)
    made.wait_for(DiagnosticStatus.WARN, "name coordinate 5; there are 3")
    assert not made.commands


def test_a_continuous_joint_goes_on_from_its_own_turn(rig: Callable[..., Rig]) -> None:
    made = rig(coordinates=["angle 0"], **MIXING, max_jump=[0.3], state_joints=["wheel"])
    states = made.graph.talk(JointState, "joint_states")
    state = JointState(name=["wheel"], position=[3.1 + 2 * np.pi])
    made.send([[3.1], [-3.1]] * 10)
    states.publish(state)
    commands = sent(made, 10).ravel()
    assert (3.1 + 2 * np.pi - 1e-9 <= commands).all()
    assert (commands <= 4 * np.pi - 3.1 + 1e-9).all()
