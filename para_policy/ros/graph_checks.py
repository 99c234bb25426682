"""What is wrong between the nodes of a running graph, as sentences; nobody else would say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

NAMELESS = "_NODE_NAME_UNKNOWN_"
"""What the middleware calls a node of which it has not heard more than an endpoint yet."""


def type_conflicts(node: Node, expected: Mapping[str, str]) -> list[str]:
    """Topics that somebody publishes with another type than `expected` (topic to type).

    The middleware never connects such a publisher and tells nobody.
    """
    return [
        f"topic {topic} carries {publisher.topic_type} from {publisher.node_name}, expected {kind}"
        for topic, kind in expected.items()
        for publisher in node.get_publishers_info_by_topic(topic)
        if publisher.topic_type != kind
    ]


def qos_conflicts(node: Node, subscriptions: Mapping[str, QoSProfile]) -> list[str]:
    """Publishers that never reach a subscription, as they offer less than it asks for.

    Args:
        subscriptions: quality of service asked for, by topic.
    """
    found = []
    for topic, wanted in subscriptions.items():
        for publisher in node.get_publishers_info_by_topic(topic):
            compatibility, reason = qos_check_compatible(publisher.qos_profile, wanted)
            if compatibility == QoSCompatibility.ERROR:
                difference = _difference(publisher.qos_profile, wanted) or reason.strip()
                found.append(f"topic {topic}: publisher {full_name(publisher)} is {difference}")
    return found


def rivals(node: Node, topic: str) -> list[str]:
    """More than one node that publishes on a topic where only one makes sense; empty if all is well.

    A process that was killed stays in the graph for some time (20 s with Fast DDS), beside its
    successor of the same name; that is no rival.
    """
    found = {full_name(publisher) for publisher in node.get_publishers_info_by_topic(topic)}
    names = sorted(name for name in found if not name.endswith(NAMELESS))
    if len(names) < 2:
        return []
    return [f"topic {topic} has {len(names)} publishers, expected one: {', '.join(names)}"]


def full_name(endpoint: Any) -> str:
    """Name of the node of a publisher or subscription, with its namespace."""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _difference(offered: QoSProfile, wanted: QoSProfile) -> str:
    """The settings that differ and what to do; empty if they are none of the usual ones."""
    parts = []
    if (
        offered.reliability == ReliabilityPolicy.BEST_EFFORT
        and wanted.reliability == ReliabilityPolicy.RELIABLE
    ):
        parts.append(
            "best effort and the subscription reliable; set `reliable: false` for this topic in "
            "the inputs file, or let the publisher be reliable"
        )
    if (
        offered.durability == DurabilityPolicy.VOLATILE
        and wanted.durability == DurabilityPolicy.TRANSIENT_LOCAL
    ):
        parts.append(
            "volatile and the subscription transient local; set `lockstep` alike on all nodes, or "
            "let the publisher be transient local"
        )
    return "; it is also ".join(parts)
