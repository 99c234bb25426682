"""Each fault between two nodes, over real DDS, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64, String

from para_policy.ros.graph import qos_conflicts, rivals, type_conflicts
from tests.ros.graph import Graph

TOPIC = "/doctor_test/values"
RELIABLE = QoSProfile(depth=1)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def publish(graph: Graph, name: str, qos: QoSProfile = RELIABLE) -> Any:
    before = graph.probe.count_publishers(TOPIC)
    node = graph.add(lambda **options: Node(name, namespace="arm", **options))
    publisher = node.create_publisher(Float64, TOPIC, qos)
    graph.wait(lambda: graph.probe.count_publishers(TOPIC) == before + 1)
    return publisher


def test_another_type_is_named_with_its_publisher(graph: Graph, others: Graph) -> None:
    publish(graph, "fits")
    expected = {TOPIC: "std_msgs/msg/Float64"}
    assert type_conflicts(graph.probe, expected) == []
    others.probe.create_publisher(String, TOPIC, 10)
    said = f"topic {TOPIC} carries std_msgs/msg/String from probe, expected std_msgs/msg/Float64"
    graph.wait(lambda: type_conflicts(graph.probe, expected) == [said])


@pytest.mark.parametrize(
    ("offered", "wanted", "words"),
    [
        (RELIABLE, RELIABLE, None),
        (RELIABLE, BEST_EFFORT, None),
        (BEST_EFFORT, BEST_EFFORT, None),
        (LATCHED, RELIABLE, None),
        (
            BEST_EFFORT,
            RELIABLE,
            "is best effort and the subscription reliable; set `reliable: false`",
        ),
        (RELIABLE, LATCHED, "is volatile and the subscription transient local; set `lockstep`"),
        (BEST_EFFORT, LATCHED, "it is also volatile"),
    ],
)
def test_quality_of_service_that_never_connects(
    graph: Graph, offered: QoSProfile, wanted: QoSProfile, words: str | None
) -> None:
    received = graph.listen(Float64, TOPIC, wanted)
    publisher = publish(graph, "camera", offered)
    conflicts = qos_conflicts(graph.probe, {TOPIC: wanted})
    if words is None:
        assert conflicts == []
        graph.wait(lambda: publisher.publish(Float64(data=1.0)) or received)  # it says the truth
        return
    (conflict,) = conflicts
    assert conflict.startswith(f"topic {TOPIC}: publisher /arm/camera is ")
    assert words in conflict


def test_rivals_are_all_named(graph: Graph) -> None:
    assert rivals(graph.probe, TOPIC) == []
    publish(graph, "policy_b")
    assert rivals(graph.probe, TOPIC) == []
    publish(graph, "policy_a")
    assert rivals(graph.probe, TOPIC) == [
        f"topic {TOPIC} has 2 publishers, expected one: /arm/policy_a, /arm/policy_b"
    ]
