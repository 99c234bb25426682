"""Two publishers of the joint states that an executor starts from: it holds and names them."""

from __future__ import annotations

import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.messages.conversions import chunk_to_message
from tests.ros.graph import Graph


def test_two_publishers_of_the_state_hold_the_robot_and_are_named(graph: Graph) -> None:
    graph.add(
        ChunkExecutor,
        auto_enable=True,
        joint_names=["a"],
        coordinates=["number 0"],
        velocity_max=[1.0],
    )
    commands = graph.listen(Float64MultiArray, "chunk_executor/command")
    said = graph.listen(DiagnosticArray, "/diagnostics")
    ghost: Node = graph.add(lambda **options: Node("ghost", **options))
    chunks = graph.talk(JointTrajectory, "action_chunk")

    def broadcaster(node: Node, position: float) -> None:
        publisher = node.create_publisher(JointState, "joint_states", 10)

        def tell() -> None:
            state = JointState(name=["a"], position=[position])
            state.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(state)

        node.create_timer(0.01, tell)

    broadcaster(graph.probe, 0.2)
    broadcaster(ghost, 0.0)

    def names_both() -> bool:
        return any(
            status.level == DiagnosticStatus.WARN
            and "/ghost" in status.message
            and "/probe" in status.message
            for array in said
            for status in array.status
        )

    graph.wait(names_both)
    chunk = ActionChunk(time.time_ns(), 10**8, np.full((20, 1), 0.2))
    chunks.publish(chunk_to_message(chunk, ["a"]))
    known = len(commands)
    graph.spin_for(0.5)
    assert len(commands) == known == 0
