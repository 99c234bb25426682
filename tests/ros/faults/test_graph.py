"""Nodes too many, nodes that do not listen, and more messages than anybody needs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from tests.ros.faults.loop import Loop
from tests.ros.graph import Graph

CHUNKS = "policy_node/action_chunk"


@pytest.mark.parametrize("name", ["policy_node", "other_policy"])
def test_two_policies_hold_the_robot_until_one_is_gone(
    loop: Loop, others: Graph, name: str
) -> None:
    rival = others.add(lambda **options: Node(name, **options))
    publisher = rival.create_publisher(JointTrajectory, CHUNKS, 10)
    message = deepcopy(loop.judge.chunks[-1])

    def publish() -> None:
        message.header.stamp = loop.policy.get_clock().now().to_msg()
        publisher.publish(message)

    timer = loop.graph.probe.create_timer(0.2, publish)
    loop.wait_for_hold("2 publishers of action_chunk: ", DiagnosticStatus.ERROR)
    timer.destroy()
    rival.destroy_publisher(publisher)
    loop.wait_for_motion()
    loop.wait_for_status("playing", DiagnosticStatus.OK)


@pytest.mark.parametrize("reaction", ["hold", "warn"])
def test_two_publishers_of_an_input_are_named_until_one_is_gone(
    make_loop: Callable[..., Loop], others: Graph, reaction: str
) -> None:
    loop = make_loop(policy={"rival_inputs": reaction})
    loop.wait_for_motion()
    ghost = others.add(lambda **options: Node("joint_state_publisher", **options))
    publisher = ghost.create_publisher(JointState, "joint_states", 10)
    zeros = JointState(name=["agent_x", "agent_y"], position=[0.0, 0.0])

    def publish() -> None:
        zeros.header.stamp = loop.policy.get_clock().now().to_msg()
        publisher.publish(zeros)

    timer = loop.graph.probe.create_timer(0.1, publish)
    told = (
        "/joint_states has 2 publishers, of which at least two send the same values: "
        "/joint_state_publisher, /probe"
    )
    if reaction == "hold":
        loop.wait_for_hold(f"holding: agent_pos: {told}", DiagnosticStatus.WARN)
    else:
        loop.wait_for_status(f"active, but {told}", DiagnosticStatus.WARN)
        loop.wait_for_motion()
    timer.destroy()
    ghost.destroy_publisher(publisher)
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


LISTENER = """
import sys, rclpy
from geometry_msgs.msg import PoseStamped
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from trajectory_msgs.msg import JointTrajectory
from rclpy.qos import QoSProfile, HistoryPolicy
rclpy.init()
node = rclpy.create_node("deaf")
everything = QoSProfile(history=HistoryPolicy.KEEP_ALL)
for kind, topic in [
    (PoseStamped, "chunk_executor/command"), (JointTrajectory, "policy_node/action_chunk"),
    (DiagnosticStatus, "policy_node/chunk_info"), (DiagnosticArray, "/diagnostics"),
]:
    node.create_subscription(kind, topic, lambda _: None, everything)
rclpy.spin(node)
"""
"""Reliable, keeps everything; run as a process of its own, so that it can be stopped as a whole."""


@pytest.fixture
def deaf(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has subscribed to everything and stands still from then on."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_subscriber_that_never_reads_stops_nobody(
    loop: Loop, deaf: subprocess.Popen[bytes]
) -> None:
    loop.graph.wait(lambda: loop.graph.probe.count_subscribers(CHUNKS) == 3)
    deaf.send_signal(signal.SIGSTOP)
    # How long DDS stands still at first is not ours and varies: docs/faults.md.
    for _ in range(5):
        loop.wait_for_motion()
