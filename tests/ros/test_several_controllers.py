"""One action for several controllers: arm and gripper, guarded together, over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.messages.conversions import chunk_to_message
from tests.ros.graph import Graph

DT_NS = 100_000_000
ARM, GRIPPER = "arm_controller/joint_trajectory", "gripper_controller/commands"
JOINTS = ["shoulder", "elbow", "finger"]
PARAMETERS = {
    "auto_enable": True,
    "joint_names": JOINTS,
    "command_topics": [ARM, GRIPPER],
    "command_outputs": ["joint_trajectory", "float64_multi_array"],
    "command_sizes": [2, 1],
}


class Cell:
    """An executor, the controllers of an arm and a gripper, and what they hear."""

    def __init__(self, graph: Graph, kinds: dict[str, type], **parameters: Any) -> None:
        self.graph = graph
        self.kinds = kinds
        self.node: ChunkExecutor = graph.add(ChunkExecutor, **{**PARAMETERS, **parameters})
        self.heard: dict[str, list[Any]] = {topic: [] for topic in kinds}
        self._controllers = {topic: self._join(topic) for topic in kinds}
        self.diagnostics: list[DiagnosticArray] = graph.listen(DiagnosticArray, "/diagnostics")
        self.chunks = graph.talk(JointTrajectory, "action_chunk")
        graph.wait(lambda: not self.node._commands.absent())

    def _join(self, topic: str) -> Any:
        heard = self.heard[topic].append
        return self.graph.probe.create_subscription(self.kinds[topic], topic, heard, 10)

    def leave(self, topic: str) -> None:
        self.graph.probe.destroy_subscription(self._controllers[topic])

    def come_back(self, topic: str) -> None:
        self._controllers[topic] = self._join(topic)

    def send(self, *actions: list[float]) -> None:
        chunk = ActionChunk(time.time_ns(), DT_NS, np.array(actions, dtype=float))
        self.chunks.publish(chunk_to_message(chunk, JOINTS[: chunk.action_dim]))

    def wait_for(self, level: bytes, *words: str) -> None:
        known = len(self.diagnostics)
        self.graph.wait(
            lambda: any(
                status.level == level and all(word in status.message for word in words)
                for array in self.diagnostics[known:]
                for status in array.status
            )
        )

    def counts(self) -> list[int]:
        return [len(heard) for heard in self.heard.values()]

    def stands(self) -> bool:
        """No controller hears anything for ten periods."""
        self.graph.spin_for(0.1)
        known = self.counts()
        self.graph.spin_for(0.2)
        return self.counts() == known


@pytest.fixture
def cell(graph: Graph) -> Callable[..., Cell]:
    kinds = {ARM: JointTrajectory, GRIPPER: Float64MultiArray}
    return lambda **parameters: Cell(graph, kinds, **parameters)


def test_each_controller_gets_its_slice_in_its_form(cell: Callable[..., Cell]) -> None:
    made = cell()
    made.send(*[[1.0, 2.0, 3.0]] * 20)
    made.graph.wait(lambda: min(made.counts()) > 5)
    (arm,), (gripper,) = made.heard[ARM][:1], made.heard[GRIPPER][:1]
    assert list(arm.joint_names) == ["shoulder", "elbow"]
    assert [list(point.positions) for point in arm.points] == [[1.0, 2.0]]
    assert list(gripper.data) == [3.0]
    assert abs(made.counts()[0] - made.counts()[1]) <= 1, "every command goes to both"


def test_one_controller_that_does_not_listen_holds_all(cell: Callable[..., Cell]) -> None:
    made = cell()
    made.send(*[[1.0, 2.0, 3.0]] * 40)
    made.graph.wait(lambda: min(made.counts()) > 2)
    made.leave(GRIPPER)
    made.wait_for(DiagnosticStatus.WARN, "nobody listens to", GRIPPER, "the others wait")
    assert made.stands()
    made.come_back(GRIPPER)
    arm, gripper = made.counts()
    made.send(*[[1.0, 2.0, 3.0]] * 40)
    made.graph.wait(lambda: made.counts()[0] > arm and made.counts()[1] > gripper)


def test_a_guard_on_one_holds_all(cell: Callable[..., Cell]) -> None:
    made = cell(position_max=[10.0, 10.0, 0.5])
    made.send(*[[1.0, 2.0, 0.4]] * 5, *[[1.0, 2.0, 0.6]] * 20)
    made.wait_for(DiagnosticStatus.ERROR, "position_max guard: finger would have 0.6, limit 0.5")
    assert made.stands()
    assert {command.data[0] for command in made.heard[GRIPPER]} == {0.4}
    assert made.counts()[0] == made.counts()[1] > 0


def test_late_joint_states_of_one_hold_all(cell: Callable[..., Cell]) -> None:
    topics = {"arm/joint_states": JOINTS[:2], "gripper/joint_states": JOINTS[2:]}
    made = cell(max_jump=[5.0], max_state_age_s=0.3, state_topics=list(topics))
    states = {topic: made.graph.talk(JointState, topic) for topic in topics}
    silent: set[str] = set()
    warnings = made.graph.warnings()

    def tell() -> None:
        for topic, joints in topics.items():
            if topic not in silent:
                state = JointState(name=joints, position=[0.0] * len(joints))
                state.header.stamp = made.graph.probe.get_clock().now().to_msg()
                states[topic].publish(state)

    made.graph.probe.create_timer(0.02, tell)
    made.send(*[[1.0, 2.0, 3.0]] * 60)
    made.graph.wait(lambda: min(made.counts()) > 2)
    silent.add("gripper/joint_states")
    made.wait_for(DiagnosticStatus.WARN, "s old, expected at most 0.3 s")
    assert made.stands()
    blamed = "after a message on /arm/joint_states: the newest values of joint finger are "
    made.graph.wait(lambda: any(text.startswith(blamed) for text in warnings))
    silent.clear()
    known = made.counts()
    made.send(*[[1.0, 2.0, 3.0]] * 60)
    made.graph.wait(lambda: all(now > then for now, then in zip(made.counts(), known, strict=True)))


def test_poses_of_one_are_blended_as_poses_beside_the_numbers_of_the_other(graph: Graph) -> None:
    made = Cell(
        graph,
        {"tool": PoseStamped, GRIPPER: Float64MultiArray},
        joint_names=[""],
        command_topics=["tool", GRIPPER],
        command_outputs=["pose_stamped", "float64_multi_array"],
        command_sizes=[7, 1],
        frame_id="base",
        interpolation="linear",
        coordinates=["number 7"],
    )
    half = float(np.sqrt(0.5))
    # A quarter turn about z, the second quaternion with the other sign; the gripper opens.
    start, end = [0, 0, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -half, -half, 10]
    chunk = ActionChunk(time.time_ns(), 10 * DT_NS, np.array([start, end], dtype=float))
    made.chunks.publish(chunk_to_message(chunk, [f"joint_{index}" for index in range(8)]))
    made.graph.wait(lambda: made.heard["tool"] and made.heard["tool"][-1].pose.position.x > 0.5)
    for pose, gripper in zip(made.heard["tool"], made.heard[GRIPPER], strict=False):
        done = pose.pose.position.x
        turn = pose.pose.orientation
        assert np.hypot(turn.z, turn.w) == pytest.approx(1.0), "a rotation, not a mean of numbers"
        assert 2 * np.arctan2(turn.z, turn.w) == pytest.approx(done * np.pi / 2)
        assert gripper.data[0] == pytest.approx(10 * done)


def test_motion_begins_where_tool_and_gripper_both_are(graph: Graph) -> None:
    made = Cell(
        graph,
        {"tool": PoseStamped, GRIPPER: Float64MultiArray},
        joint_names=[*"xyz", "qx", "qy", "qz", "qw", "finger"],
        command_topics=["tool", GRIPPER],
        command_outputs=["pose_stamped", "float64_multi_array"],
        command_sizes=[7, 1],
        velocity_max=[1.0],
        frame_id="base",
    )
    pose = made.graph.talk(PoseStamped, "present_pose")
    joints = made.graph.talk(JointState, "joint_states")
    present = {"gripper": False}

    def tell() -> None:
        now = made.graph.probe.get_clock().now().to_msg()
        where = PoseStamped()
        where.header.stamp, where.header.frame_id = now, "base"
        where.pose.position.x, where.pose.orientation.w = 0.2, 1.0
        pose.publish(where)
        if present["gripper"]:
            state = JointState(name=["finger"], position=[0.5])
            state.header.stamp = now
            joints.publish(state)

    made.graph.probe.create_timer(0.02, tell)
    actions = np.array([[0.3, 0, 0, 0, 0, 0, 1, 0.6]] * 60, dtype=float)
    names = [*"xyz", "qx", "qy", "qz", "qw", "finger"]
    made.chunks.publish(chunk_to_message(ActionChunk(time.time_ns(), DT_NS, actions), names))
    made.graph.spin_for(0.3)
    assert made.counts() == [0, 0], "nobody knows where the gripper is"
    present["gripper"] = True
    made.graph.wait(lambda: min(made.counts()) > 3)
    assert made.heard["tool"][0].pose.position.x == pytest.approx(0.2, abs=0.02)
    assert made.heard[GRIPPER][0].data[0] == pytest.approx(0.5, abs=0.02)
    made.graph.wait(
        lambda: (
            made.heard[GRIPPER][-1].data[0] == pytest.approx(0.6)
            and made.heard["tool"][-1].pose.position.x == pytest.approx(0.3)
        )
    )
