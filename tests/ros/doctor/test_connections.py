"""Chunk and command topics between stand-ins of the nodes: each fault alone."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.doctor.connections import check_chunks, check_commands, check_state
from para_policy.ros.doctor.report import Level
from tests.ros.graph import Graph

CHUNKS, COMMANDS = "/policy_node/action_chunk", "/chunk_executor/command"


def add(graph: Graph, name: str) -> Any:
    return graph.add(lambda **options: Node(name, **options))


def publish(graph: Graph, name: str, kind: type, topic: str) -> None:
    add(graph, name).create_publisher(kind, topic, 10)
    graph.wait(lambda: _knows(graph.probe, name, topic))


def _knows(probe: Node, name: str, topic: str) -> bool:
    return any(p.node_name == name for p in probe.get_publishers_info_by_topic(topic))


def subscribe(graph: Graph, kind: type, topic: str, qos: Any = 10) -> None:
    node = add(graph, "listener_" + kind.__name__)
    node.create_subscription(kind, topic, lambda _: None, qos)
    graph.wait(lambda: graph.probe.count_subscribers(topic))


def test_connected(graph: Graph) -> None:
    publish(graph, "policy_node", JointTrajectory, CHUNKS)
    publish(graph, "chunk_executor", Float64MultiArray, COMMANDS)
    subscribe(graph, JointTrajectory, CHUNKS)
    subscribe(graph, Float64MultiArray, COMMANDS)
    (chunks,) = check_chunks(graph.probe, "/policy_node", ["/chunk_executor"])
    (commands,) = check_commands(graph.probe, "/chunk_executor")
    assert (chunks.level, commands.level) == (Level.OK, Level.OK)
    assert "goes to /listener_Float64MultiArray" in commands.found


def test_executor_that_was_not_remapped(graph: Graph) -> None:
    publish(graph, "policy_node", JointTrajectory, CHUNKS)
    subscribe(graph, JointTrajectory, "/action_chunk")
    (finding,) = check_chunks(graph.probe, "/policy_node", ["/chunk_executor"])
    assert finding.level == Level.FAIL
    assert "/action_chunk" in finding.advice
    (finding,) = check_chunks(graph.probe, "/policy_node", [])
    assert finding.level == Level.WARN


def test_two_policies_on_one_chunk_topic(graph: Graph) -> None:
    publish(graph, "policy_node", JointTrajectory, CHUNKS)
    publish(graph, "other_policy", JointTrajectory, CHUNKS)
    subscribe(graph, JointTrajectory, CHUNKS)
    rivalry, connected = check_chunks(graph.probe, "/policy_node", ["/chunk_executor"])
    assert (rivalry.level, connected.level) == (Level.FAIL, Level.OK)
    assert "/other_policy, /policy_node" in rivalry.found


def test_nobody_tells_the_executor_where_the_robot_is(graph: Graph) -> None:
    assert not list(check_state(graph.probe, "/none"))
    executor = graph.add(ChunkExecutor, velocity_max=[1.0], joint_names=["a"], auto_enable=True)
    graph.wait(lambda: graph.probe.count_subscribers("joint_states"))
    (finding,) = check_state(graph.probe, executor.get_fully_qualified_name())
    assert finding.level == Level.FAIL
    assert "nobody publishes /joint_states" in finding.found
    publish(graph, "broadcaster", JointState, "/joint_states")
    (finding,) = check_state(graph.probe, executor.get_fully_qualified_name())
    assert (finding.level, finding.found) == (Level.OK, "/joint_states from /broadcaster")


def test_nobody_obeys(graph: Graph) -> None:
    publish(graph, "chunk_executor", Float64MultiArray, COMMANDS)
    (finding,) = check_commands(graph.probe, "/chunk_executor")
    assert finding.level == Level.FAIL
    assert "nobody subscribes to /chunk_executor/command" in finding.found


def test_controller_that_expects_another_type(graph: Graph, others: Graph) -> None:
    publish(graph, "chunk_executor", Float64MultiArray, COMMANDS)
    others.probe.create_subscription(JointTrajectory, COMMANDS, lambda _: None, 10)
    graph.wait(lambda: graph.probe.count_subscribers(COMMANDS))
    words = "/probe expects trajectory_msgs/msg/JointTrajectory on /chunk_executor/command"
    graph.wait(lambda: words in next(check_commands(graph.probe, "/chunk_executor")).found)
    (finding,) = check_commands(graph.probe, "/chunk_executor")
    assert finding.level == Level.FAIL


def test_controller_that_asks_for_more(graph: Graph) -> None:
    publish(graph, "chunk_executor", Float64MultiArray, COMMANDS)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscribe(graph, Float64MultiArray, COMMANDS, latched)
    first, *_ = check_commands(graph.probe, "/chunk_executor")
    assert first.level == Level.FAIL
    assert (
        "volatile and the subscription transient local of /listener_Float64MultiArray"
        in first.found
    )


def test_each_of_several_controllers_must_listen(graph: Graph) -> None:
    topics = ["/arm/joint_trajectory", "/gripper/commands"]
    graph.add(
        ChunkExecutor,
        joint_names=["shoulder", "finger"],
        command_topics=topics,
        command_outputs=["joint_trajectory", "float64_multi_array"],
        command_sizes=[1, 1],
    )
    graph.wait(lambda: all(graph.probe.count_publishers(topic) for topic in topics))
    subscribe(graph, JointTrajectory, topics[0])
    found = {
        finding.found: finding.level for finding in check_commands(graph.probe, "/chunk_executor")
    }
    assert found == {
        "/arm/joint_trajectory goes to /listener_JointTrajectory": Level.OK,
        "nobody subscribes to /gripper/commands: the robot does not move": Level.FAIL,
    }
