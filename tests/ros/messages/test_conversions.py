from __future__ import annotations

import sys
from copy import deepcopy

import numpy as np
import pytest
from geometry_msgs.msg import (
    Pose,
    PoseArray,
    PoseStamped,
    Twist,
    TwistStamped,
    Vector3,
    Wrench,
    WrenchStamped,
)
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float32, Float32MultiArray, Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import (
    chunk_to_message,
    message_to_chunk,
    ns_to_stamp,
    stamp_to_ns,
)
from para_policy.ros.messages.fitting import check_shape
from para_policy.ros.messages.inputs import InputMapping

STAMP = 1_700_000_000_123_456_789
NAMES = ["a", "b"]


def make_chunk(steps: int = 4) -> ActionChunk:
    return ActionChunk(STAMP, 33_333_333, np.random.default_rng(0).normal(size=(steps, 2)))


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(time_ns: int) -> None:
    assert stamp_to_ns(ns_to_stamp(time_ns)) == time_ns


def test_chunk_survives_the_message_bit_for_bit() -> None:
    chunk = make_chunk()
    message = chunk_to_message(chunk, NAMES)
    assert [stamp_to_ns(p.time_from_start) for p in message.points] == [
        (i + 1) * chunk.dt_ns for i in range(4)
    ]
    received = message_to_chunk(message, receive_ns=1, joint_names=NAMES)
    assert (received.stamp_ns, received.dt_ns) == (STAMP, chunk.dt_ns)
    np.testing.assert_array_equal(received.actions, chunk.actions)


def test_zero_stamp_means_start_on_arrival() -> None:
    message = chunk_to_message(make_chunk(), NAMES, on_arrival=True)
    assert stamp_to_ns(message.header.stamp) == 0
    assert message_to_chunk(message, receive_ns=77).stamp_ns == 77


def spoil_names(message: JointTrajectory) -> None:
    message.joint_names = ["b", "a"]


def spoil_size(message: JointTrajectory) -> None:
    message.points[2].positions = [1.0]


def spoil_time(message: JointTrajectory) -> None:
    message.points[2].time_from_start.sec = 1


def spoil_value(message: JointTrajectory) -> None:
    message.points[2].positions = [1.0, float("nan")]


def spoil_points(message: JointTrajectory) -> None:
    message.points = []


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (spoil_names, InputError, r"joints \['b', 'a'\], expected \['a', 'b'\]"),
        (spoil_size, InputError, r"\[1, 2\] positions"),
        (spoil_points, InputError, "positions"),
        (spoil_time, InputError, "evenly spaced"),
        (spoil_value, NonFiniteError, "action 2"),
    ],
)
def test_invalid_trajectories_are_refused(spoil, error: type[Exception], reason: str) -> None:
    message = chunk_to_message(make_chunk(), NAMES)
    spoil(message)
    with pytest.raises(error, match=reason):
        message_to_chunk(message, 1, NAMES)


def make_pose(*values: float) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = values
    pose.orientation.w = 0.5
    return pose


TWIST = Twist(linear=Vector3(x=1.0, y=2.0, z=3.0), angular=Vector3(x=4.0, y=5.0, z=6.0))
WRENCH = Wrench(force=TWIST.linear, torque=TWIST.angular)
IMU = Imu(angular_velocity=TWIST.angular, linear_acceleration=TWIST.linear)
POSES = PoseArray(poses=[make_pose(1.0, 2.0, 3.0), make_pose(4.0, 5.0, 6.0)])


@pytest.mark.parametrize(
    ("options", "message", "expected"),
    [
        (
            {"type": "sensor_msgs/msg/JointState", "joints": ["b", "a"]},
            JointState(name=["a", "x", "b"], position=[1.0, 2.0, 3.0]),
            [3, 1],
        ),
        ({"type": "geometry_msgs/msg/PoseArray"}, POSES, [1, 2, 4, 5]),
        ({"type": "geometry_msgs/msg/PoseArray", "axes": "xyz"}, POSES, [1, 2, 3, 4, 5, 6]),
        (
            {"type": "geometry_msgs/msg/PoseStamped", "axes": "pose"},
            PoseStamped(pose=make_pose(1.0, 2.0, 3.0)),
            [1, 2, 3, 0, 0, 0, 0.5],
        ),
        (
            {"type": "geometry_msgs/msg/PoseStamped", "axes": "pose_wxyz"},
            PoseStamped(pose=make_pose(1.0, 2.0, 3.0)),
            [1, 2, 3, 0.5, 0, 0, 0],
        ),
        (
            {"type": "std_msgs/msg/Float64MultiArray"},
            Float64MultiArray(data=[0.1, 0.2]),
            [0.1, 0.2],
        ),
        ({"type": "std_msgs/msg/Float32MultiArray"}, Float32MultiArray(data=[0.5]), [0.5]),
        ({"type": "std_msgs/msg/Float32"}, Float32(data=0.5), [0.5]),
        ({"type": "std_msgs/msg/Float64"}, Float64(data=0.1), [0.1]),
        (
            {
                "type": "sensor_msgs/msg/JointState",
                "joints": ["b", "a"],
                "fields": ["effort", "velocity"],
            },
            JointState(name=["a", "b"], velocity=[1.0, 2.0], effort=[3.0, 4.0]),
            [4, 3, 2, 1],
        ),
        ({"type": "geometry_msgs/msg/Twist"}, TWIST, [1, 2, 3, 4, 5, 6]),
        (
            {"type": "geometry_msgs/msg/TwistStamped", "fields": ["angular.z", "linear"]},
            TwistStamped(twist=TWIST),
            [6, 1, 2, 3],
        ),
        ({"type": "geometry_msgs/msg/Wrench"}, WRENCH, [1, 2, 3, 4, 5, 6]),
        (
            {"type": "geometry_msgs/msg/WrenchStamped", "fields": ["torque"]},
            WrenchStamped(wrench=WRENCH),
            [4, 5, 6],
        ),
        ({"type": "sensor_msgs/msg/Imu"}, IMU, [0, 0, 0, 1, 4, 5, 6, 1, 2, 3]),
        (
            {"type": "sensor_msgs/msg/Imu", "fields": ["linear_acceleration.z"], "scale": -1.0},
            IMU,
            [-3],
        ),
    ],
)
def test_messages_become_arrays(options: dict, message, expected: list[float]) -> None:
    mapping = InputMapping(topic="t", **options)
    message = deepcopy(message)
    stamp_ns, values = mapping.read(message, receive_ns=5, shape=(len(expected),))
    assert stamp_ns == 5  # without a stamp, the time of receipt counts
    assert values.dtype == np.float64
    assert values.tolist() == expected
    if hasattr(message, "header"):
        message.header.stamp = ns_to_stamp(STAMP)
        assert mapping.read(message, receive_ns=5, shape=(len(expected),))[0] == STAMP


def test_odometry_becomes_an_array() -> None:
    odometry = pytest.importorskip("nav_msgs.msg").Odometry()
    odometry.pose.pose = make_pose(1.0, 2.0, 3.0)
    odometry.twist.twist = TWIST
    mapping = InputMapping(topic="t", type="nav_msgs/msg/Odometry")
    assert mapping.width == 13
    values = mapping.read(odometry, 0, shape=(13,))[1].tolist()
    assert values == [1, 2, 3, 0, 0, 0, 0.5, 1, 2, 3, 4, 5, 6]
    planar = InputMapping(
        topic="t", type="nav_msgs/msg/Odometry", fields=("position.x", "linear.x", "angular.z")
    )
    assert planar.read(odometry, 0, shape=(3,))[1].tolist() == [1, 1, 6]


def test_type_whose_package_is_missing_is_refused_before_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nav_msgs.msg", None)
    mapping = InputMapping(topic="t", type="nav_msgs/msg/Odometry")
    with pytest.raises(
        InputError, match="not available; install and source the package 'nav_msgs'"
    ):
        check_shape(mapping, (13,))


def test_imu_that_does_not_measure_a_field_is_refused() -> None:
    unknown = deepcopy(IMU)
    unknown.orientation_covariance[0] = -1.0
    whole = InputMapping(topic="t", type="sensor_msgs/msg/Imu")
    with pytest.raises(InputError, match="does not measure orientation: its covariance begins"):
        whole.read(unknown, 0, shape=(10,))
    rates = InputMapping(topic="t", type="sensor_msgs/msg/Imu", fields=("angular_velocity",))
    assert rates.read(unknown, 0, shape=(3,))[1].tolist() == [4, 5, 6]


def test_absent_joint_is_named() -> None:
    mapping = InputMapping(topic="t", type="sensor_msgs/msg/JointState", joints=("a", "c"))
    with pytest.raises(InputError, match=r"joint c; the message names \['a'\]"):
        mapping.read(JointState(name=["a"], position=[1.0]), 0, shape=(2,))
