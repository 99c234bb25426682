from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.messages.conversions import chunk_to_message, ns_to_stamp, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from tests.ros.arm import set_points
from tests.ros.graph import Graph

DT_NS = 100_000_000


class Rig:
    """An executor with one kind of output, and what it says."""

    def __init__(self, graph: Graph, kind: type, **parameters: Any) -> None:
        self.graph = graph
        self.node = graph.add(ChunkExecutor, **{"auto_enable": True, **parameters})
        self.commands = graph.listen(kind, "chunk_executor/command")
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        self.chunks = graph.talk(JointTrajectory, "action_chunk")
        graph.wait(lambda: graph.probe.count_publishers("chunk_executor/command"))

    def send(self, actions: Any) -> None:
        chunk = ActionChunk(time.time_ns(), DT_NS, np.array(actions, dtype=float))
        joints = [f"joint_{index}" for index in range(chunk.action_dim)]
        self.chunks.publish(chunk_to_message(chunk, joints))

    def last_status(self) -> DiagnosticStatus:
        return self.diagnostics[-1].status[0]

    def wait_for(self, level: bytes, *words: str) -> DiagnosticStatus:
        def said() -> list[DiagnosticStatus]:
            return [
                status
                for array in self.diagnostics
                for status in array.status
                if status.level == level and all(word in status.message for word in words)
            ]

        self.graph.wait(said)
        return said()[-1]


@pytest.fixture
def rig(graph: Graph) -> Callable[..., Rig]:
    return lambda kind=Float64MultiArray, **parameters: Rig(graph, kind, **parameters)


def test_trajectory_has_one_point_two_periods_ahead(rig: Callable[..., Rig]) -> None:
    made = rig(JointTrajectory, output="joint_trajectory", joint_names=["joint_0", "joint_1"])
    made.send([[1, 2]] * 20)
    made.graph.wait(lambda: made.commands)
    command = made.commands[0]
    assert stamp_to_ns(command.header.stamp) == 0  # for controllers: from now on
    assert command.joint_names == ["joint_0", "joint_1"]
    (point,) = command.points
    assert list(point.positions) == [1, 2]
    assert stamp_to_ns(point.time_from_start) == 40_000_000


@pytest.mark.parametrize(("horizon", "stands"), [({}, False), ({"horizon_periods": 1.0}, True)])
def test_a_controller_does_not_stand_still_between_late_messages(
    rig: Callable[..., Rig], horizon: dict[str, float], stands: bool
) -> None:
    made = rig(
        JointTrajectory,
        output="joint_trajectory",
        joint_names=["joint_0"],
        interpolation="linear",
        coordinates=["number 0"],
        **horizon,
    )
    made.send([[0.01 * index] for index in range(30)])
    made.graph.wait(lambda: len(made.commands) > 40)
    late = [0.0, 0.008]  # seconds, in turn
    arrivals = [0.02 * index + late[index % 2] for index in range(40)]
    points = set_points(list(zip(arrivals, made.commands, strict=False)), update_s=0.002)
    moving = np.diff(points[30:])  # from the third message on
    assert (moving >= 0).all()
    assert bool((moving == 0).any()) == stands


def test_pose_has_frame_time_and_a_quaternion_of_length_one(rig: Callable[..., Rig]) -> None:
    made = rig(PoseStamped, output="pose_stamped", frame_id="base", interpolation="linear")
    made.send([[1, 2, 3, 0, 0, 0.3, 0.4], [1, 2, 3, 0, 0, -0.6, -0.8]] * 10)
    made.graph.wait(lambda: len(made.commands) > 8)
    for command in made.commands:
        q, p = command.pose.orientation, command.pose.position
        assert [p.x, p.y, p.z] == pytest.approx([1, 2, 3])
        assert [q.x, q.y, q.z, q.w] == pytest.approx([0, 0, 0.6, 0.8])
    assert command.header.frame_id == "base"
    assert abs(stamp_to_ns(command.header.stamp) - time.time_ns()) < 10 * 10**9


def test_pose_with_fixed_orientation_takes_three_numbers(rig: Callable[..., Rig]) -> None:
    orientation = [0.0, 0.0, 1.0, 0.0]
    made = rig(PoseStamped, output="pose_stamped", frame_id="base", fixed_orientation=orientation)
    made.send([[0, 0, 0, 0, 0, 0, 1]] * 20)
    made.wait_for(DiagnosticStatus.WARN, "7 joints, expected 3")
    assert not made.commands
    made.send([[1, 2, 3]] * 20)
    made.graph.wait(lambda: made.commands)
    assert made.commands[0].pose.position.z == 3
    assert made.commands[0].pose.orientation.z == 1


def test_pose_starts_where_the_robot_is_and_waits_until_that_is_known(
    rig: Callable[..., Rig],
) -> None:
    limits = {"velocity_max": [0.5], "max_jump": [0.5]}
    made = rig(PoseStamped, output="pose_stamped", frame_id="base", **limits)
    poses = made.graph.talk(PoseStamped, "present_pose")
    made.send([[0.2, 0, 0, 0, 0, 0, 1]] * 90)
    made.wait_for(DiagnosticStatus.WARN, "no state of the robot yet")
    present = PoseStamped()
    present.header.frame_id = "camera"
    poses.publish(present)
    made.graph.spin_for(0.1)
    assert not made.commands  # a pose in another frame says nothing
    present.header.frame_id = "base"
    made.graph.probe.create_timer(0.02, lambda: poses.publish(present))
    made.wait_for(DiagnosticStatus.OK, "approaching")
    made.wait_for(DiagnosticStatus.OK, "playing")
    xs = [0.0, *(command.pose.position.x for command in made.commands)]
    assert xs[-1] == 0.2
    assert max(np.diff(xs)) <= 0.5 * 0.06
    assert xs[1] <= 0.5 * 0.02


def test_twist_holds_by_one_zero(rig: Callable[..., Rig]) -> None:
    made = rig(TwistStamped, output="twist_stamped", frame_id="tool")
    made.send([[1, 2, 3, 4, 5, 6]] * 3)
    made.graph.wait(lambda: made.commands)
    twist = made.commands[0].twist
    assert [twist.linear.z, twist.angular.x] == [3, 4]
    made.wait_for(DiagnosticStatus.WARN, "chunk ran out")
    made.graph.spin_for(0.2)
    xs = [command.twist.linear.x for command in made.commands]
    assert xs[-1] == 0
    assert set(xs[:-1]) == {1}


def test_violation_is_reported_latched_and_taken_back(rig: Callable[..., Rig]) -> None:
    made = rig(position_max=[2.0, 5.0], interpolation="linear", coordinates=["number 0-1"])
    made.send([[0, 0], [0, 9]] + [[0, 0]] * 20)
    status = made.wait_for(DiagnosticStatus.ERROR, "position_max guard", "action 1", "limit 5")
    assert "call ~/enable when it is safe" in status.message
    values = status_values(status)
    assert (values["guard"], values["guard_joint"], values["guard_limit"]) == (
        "position_max",
        "action 1",
        "5",
    )
    assert float(values["guard_value"]) > 5
    assert values["guard_violations"] == "1"
    count = len(made.commands)
    made.send([[1, 1]] * 20)
    made.graph.spin_for(0.2)
    assert len(made.commands) == count
    assert max(command.data[1] for command in made.commands) <= 5
    assert made.graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=True)).success
    made.graph.wait(lambda: made.commands and list(made.commands[-1].data) == [1, 1])


def test_jump_is_measured_from_the_named_joints(rig: Callable[..., Rig]) -> None:
    made = rig(max_jump=[0.5], state_joints=["a", "b"], on_violation="next_chunk")
    states = made.graph.talk(JointState, "joint_states")
    made.send([[1, 2]] * 20)
    made.wait_for(DiagnosticStatus.WARN, "no state of the robot yet")
    assert not made.commands

    def move(a: float, b: float) -> None:
        state = JointState(name=["b", "x", "a"], position=[b, 7.0, a])
        states.publish(state)
        made.graph.spin_for(0.05)

    move(1.0, float("nan"))  # as good as no state
    made.graph.spin_for(0.1)
    assert not made.commands
    move(1.2, 1.8)
    made.graph.wait(lambda: made.commands)
    move(1.0, 3.0)
    made.send([[1, 2]] * 20)
    move(1.0, 3.0)
    made.wait_for(DiagnosticStatus.ERROR, "max_jump guard", "action 1", "limit 0.5")
    move(1.0, 2.2)
    count = len(made.commands)
    made.send([[1, 2]] * 20)
    made.graph.wait(lambda: len(made.commands) > count)


def test_robot_is_held_when_its_state_stays_away(rig: Callable[..., Rig]) -> None:
    made = rig(max_jump=[0.5], state_joints=["a"], max_state_age_s=0.2)
    states = made.graph.talk(JointState, "joint_states")
    made.send([[1]] * 40)
    states.publish(JointState(name=["a"], position=[1.0]))
    made.graph.wait(lambda: made.commands)
    made.wait_for(DiagnosticStatus.WARN, "the state of the robot is", "expected at most 0.2 s")


@pytest.mark.parametrize(("ahead_s", "is_read"), [(0.4, True), (0.8, False)])
def test_a_state_from_a_clock_that_is_ahead_ages_from_its_arrival_and_is_told(
    rig: Callable[..., Rig], ahead_s: float, is_read: bool
) -> None:
    made = rig(max_jump=[0.5], state_joints=["a"], max_state_age_s=0.5, command_rate_hz=200.0)
    states = made.graph.talk(JointState, "joint_states")
    warnings = made.graph.warnings()
    state = JointState(name=["a"], position=[1.0])

    def tell() -> None:
        state.header.stamp = ns_to_stamp(time.time_ns() + round(1e9 * ahead_s))
        states.publish(state)

    timer = made.graph.probe.create_timer(0.02, tell)
    made.send([[1]] * 900)
    if not is_read:
        made.wait_for(DiagnosticStatus.WARN, "no state of the robot yet")
        made.graph.wait(
            lambda: any("ahead of the clock, expected at most 0.5 s" in w for w in warnings)
        )
        assert not made.commands
        return
    made.wait_for(DiagnosticStatus.WARN, "playing: a message on /joint_states was stamped 0.")
    timer.cancel()
    known = len(made.commands)
    made.graph.wait(lambda: not made.node._commander.moving)
    assert len(made.commands) - known <= 0.7 * 200  # 180 if the stamp counted


def test_state_is_put_together_from_broadcasters_and_as_old_as_the_oldest(
    rig: Callable[..., Rig],
) -> None:
    made = rig(max_jump=[0.5], state_joints=["a", "b"], max_state_age_s=0.3)
    states = made.graph.talk(JointState, "joint_states")

    def move(*joints: str) -> None:
        stamp = ns_to_stamp(time.time_ns())
        for joint in joints:
            state = JointState(name=[joint], position=[1.0])
            state.header.stamp = stamp
            states.publish(state)
        made.graph.spin_for(0.02)

    made.send([[1, 1]] * 40)
    move("a", "gripper")
    made.wait_for(DiagnosticStatus.WARN, "no state of the robot yet")
    assert not made.commands
    for _ in range(5):
        move("a", "b", "gripper")
    assert made.commands
    for _ in range(25):  # b is silent for half a second
        move("a", "gripper")
    made.wait_for(DiagnosticStatus.WARN, "the state of the robot is", "expected at most 0.3 s")
    assert not made.node._commander.moving
    count = len(made.commands)
    move("a", "b")
    made.graph.wait(lambda: len(made.commands) > count)


def test_commands_go_on_at_their_rate_and_end_within_a_period(rig: Callable[..., Rig]) -> None:
    made = rig(command_rate_hz=200.0, interpolation="linear", coordinates=["number 0"])
    began = time.time_ns()
    made.send([[0], [1], [2], [3], [4]])
    arrived: list[int] = []
    made.graph.probe.create_subscription(
        Float64MultiArray, "chunk_executor/command", lambda _: arrived.append(time.time_ns()), 10
    )
    made.graph.spin_for(1.2)
    numbers = [command.data[0] for command in made.commands]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 20  # far more than the five actions
    assert arrived[-1] - began < 5 * DT_NS + 100_000_000  # the test's own spinning takes its time
    values = status_values(made.wait_for(DiagnosticStatus.WARN, "chunk ran out"))
    assert 0 < float(values["measured_rate_hz"]) <= 220
    assert float(values["jitter_ms_p50"]) <= float(values["jitter_ms_p99"])
    assert float(values["chunk_age_ms"]) >= 500


def test_chunk_that_came_too_late_plays_its_last_action_unless_it_is_too_old(
    rig: Callable[..., Rig],
) -> None:
    made = rig(over_budget="last", max_chunk_age_s=5.0)
    for age_s, actions in ((6, [[7.0]] * 100), (2, [[1.0], [2.0]])):
        chunk = ActionChunk(time.time_ns() - age_s * 10**9, DT_NS, np.array(actions))
        made.chunks.publish(chunk_to_message(chunk, ["joint_0"]))
    made.wait_for(DiagnosticStatus.WARN, "too old", "expected at most 5 s")
    made.graph.wait(lambda: made.commands)
    made.graph.wait(lambda: status_values(made.last_status())["over_budget_chunks"] == "1")
    assert {command.data[0] for command in made.commands} == {2}


def test_simulated_time_plays_and_when_it_steps_back_the_robot_holds(
    rig: Callable[..., Rig],
) -> None:
    made = rig(use_sim_time=True)
    clock = made.graph.talk(Clock, "/clock")

    def go_to(step: float) -> None:
        time_ns = 10**12 + round(step * DT_NS)
        clock.publish(Clock(clock=ns_to_stamp(time_ns)))
        made.graph.wait(lambda: made.node.get_clock().now().nanoseconds == time_ns)
        made.graph.spin_for(0.05)

    go_to(0)
    chunk = ActionChunk(10**12, DT_NS, np.arange(9.0)[:, None])
    made.chunks.publish(chunk_to_message(chunk, ["joint_0"]))
    made.graph.wait(lambda: made.node._player.chunk is not None)
    for step in (1, 2, 3.5):
        go_to(step)
    made.graph.wait(lambda: made.commands)
    assert {command.data[0] for command in made.commands} <= {1, 2, 3}
    count = len(made.commands)
    for step in (1, 2, 3, 4, 5):
        go_to(step)
    assert len(made.commands) == count
    made.wait_for(DiagnosticStatus.WARN, "no chunk yet")
