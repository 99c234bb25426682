"""Each fault between two nodes, over real DDS, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64, String

from para_policy.ros.graph import InputSources, qos_conflicts, rivals, type_conflicts
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


TWO = ("/arm", "/ghost")


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([("ab", 7), ("ab", 1), ("ab", 8), ("ab", 2)], True),
        ([("ab", 1), ("ab", 1), ("ab", 2), ("ab", 2)], True),  # both began at the same time
        ([("a", 7), ("b", 1), ("a", 8), ("b", 2), ("", 1)], False),  # each has its own joints
        ([("ab", 7), ("b", 1), ("ab", 8), ("b", 2)], True),  # one of them shares a joint
        ([("ab", 7), ("ab", 8), ("ab", 1), ("ab", 2)], False),  # one died, and came back
        ([("ab", None), ("ab", None)], False),
    ],
)
def test_who_sends_the_same_joints_is_known_by_the_numbers(
    messages: list[tuple[str, int | None]], found: bool
) -> None:
    sources = InputSources(shared=True)
    for joints, number in messages:
        sources.heard(joints, number, now_s=1.0)
    assert bool(sources.problem("/joint_states", TWO, now_s=2.0)) == found
    assert not sources.problem("/joint_states", TWO, now_s=20.0)
    assert not sources.problem("/joint_states", TWO[:1], now_s=2.0)


def test_without_numbers_all_who_publish_whole_messages_count() -> None:
    sources = InputSources(shared=False)
    assert not sources.problem("/image", TWO, now_s=1.0)  # nobody has sent anything yet
    sources.heard([""], None, now_s=1.0)
    assert "/arm, /ghost" in sources.problem("/image", TWO, now_s=20.0)
    assert not sources.problem("/image", ("/arm", "/arm"), now_s=20.0)  # perhaps a dead one
    sources.heard([""], 5, now_s=20.0)  # numbered: only one of them sends
    assert not sources.problem("/image", TWO, now_s=20.0)
