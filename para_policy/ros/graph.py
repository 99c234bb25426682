"""Graph of nodes: the quality of service that ours agree on, and what is wrong between nodes.

The middleware never says by itself why a message does not arrive; the checks do, in sentences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.validate_full_topic_name import validate_full_topic_name

from para_policy.errors import InputError

NAMELESS = "_NODE_NAME_UNKNOWN_"
"""Name in the middleware of a node of which it has not heard more than an endpoint yet."""

_RIVALS_S = 10.0
"""Two steps back of an input's messages within this time are those of two living publishers."""

_IN_FRONT = (
    "failed to resolve name: ",
    "topic name '{}' is invalid: ",
    "Invalid topic name: ",
)
"""What ROS says before the reason why a name is none."""

QUEUE = QoSProfile(depth=10)
"""Reliable, for whoever listens at the time."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""The last message also reaches a subscriber that connects later.

In lockstep everybody waits for the next message, so that losing one between two nodes that have
not discovered each other yet would stop the world. In real time an old chunk or command must
never reach a newcomer.
"""


def qos_for(lockstep: bool) -> QoSProfile:
    """Quality of service of chunks and commands, in lockstep or in real time."""
    return LATCHED if lockstep else QUEUE


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
    names = sorted(name for name in set(publishers(node, topic)) if not name.endswith(NAMELESS))
    if len(names) < 2:
        return []
    return [f"topic {topic} has {len(names)} publishers, expected one: {', '.join(names)}"]


class ChunkSources:
    """The publishers of chunks: a second one is noticed, but not a node that died and came back.

    A process that was killed stays in the graph until its DDS lease runs out (20 s with the
    defaults of Fast DDS). Its successor has the same name and counts its messages from 1 again;
    two living nodes of one name make the count step back time and again. Middleware that does
    not number messages (Humble) tells nothing of nodes of one name.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._steps_back = 0

    def heard(self, number: int | None) -> None:
        """A chunk has come; `number` counts the messages of its publisher."""
        if number is None:
            return
        if self._last is not None and number <= self._last:
            self._steps_back += 1
        self._last = number

    def problem(self, publishers: Collection[str]) -> str:
        """Fault of `publishers`, the node names of all in the graph; '': none."""
        if len(publishers) < 2:
            self._steps_back = 0
            return ""
        known = sorted({name for name in publishers if NAMELESS not in name})
        if len(known) < 2 and self._steps_back < 2:
            return ""
        return (
            f"{len(publishers)} publishers of action_chunk: {', '.join(known)}; expected one, "
            "stop the others"
        )


class InputSources:
    """The publishers of one input: a second one that sends the same values is noticed.

    Several nodes may share a topic, each with joints of its own. So the numbers by which
    publishers count their messages are followed for each joint: where two nodes send the same one
    they step back time and again, and once where a node has died and come back. Middleware that
    does not number messages (Humble) tells only how many publish, which counts where every message
    has all values.

    Args:
        shared: true where messages may hold a part of the values.
    """

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._last: dict[str, int] = {}
        self._steps_back_s: deque[float] = deque(maxlen=2)
        self._unnumbered = False

    def heard(self, parts: Iterable[str], number: int | None, now_s: float) -> None:
        """A message has come that holds `parts` of the input; `number` as in `ChunkSources`."""
        self._unnumbered = number is None
        if number is None:
            return
        stepped = False
        for part in parts:
            stepped |= number <= self._last.get(part, number - 1)
            self._last[part] = number
        if stepped:
            self._steps_back_s.append(now_s)

    def problem(self, topic: str, publishers: Collection[str], now_s: float) -> str:
        """Fault of `publishers`, the node names of all in the graph; '': none."""
        if len(publishers) < 2:
            self._steps_back_s.clear()
            return ""
        known = sorted(name for name in publishers if NAMELESS not in name)
        steps = [since for since in self._steps_back_s if now_s - since < _RIVALS_S]
        by_name = self._unnumbered and not self._shared and len(set(known)) > 1
        if len(steps) < 2 and not by_name:
            return ""
        return (
            f"{topic} has {len(publishers)} publishers, of which at least two send the same "
            f"values: {', '.join(known)}; expected one, stop the others or remap them"
        )


def absolute(namespace: str, topic: str) -> str:
    """The full name of a topic that is relative to a namespace.

    >>> absolute("/arm", "joint_states"), absolute("/", "tf"), absolute("arm", "/clock")
    ('/arm/joint_states', '/tf', '/clock')
    """
    if topic.startswith("/"):
        return topic
    parts = [part for part in (namespace.strip("/"), topic) if part]
    return "/" + "/".join(parts)


def full_topic(name: str, node: Node | None = None) -> str:
    """Full name of a topic as a person writes it, with the remappings of `node`.

    Args:
        node: None: one that is called `policy_node` and has no namespace.
    Raises:
        InputError: when there can be no such topic, with the reason.
    """
    try:
        if node is not None:
            return str(node.resolve_topic_name(name))
        full = str(expand_topic_name(name, "policy_node", "/"))
        validate_full_topic_name(full)
        return full
    except (InvalidTopicNameException, RuntimeError, ValueError) as error:  # rclpy's, and rcl's
        reason = str(error)
        for start in _IN_FRONT:
            reason = reason.removeprefix(start.format(name))
        raise InputError(
            f"no topic: {reason.splitlines()[0].split(', at ')[0].rstrip(':')}"
        ) from error


def publishers(node: Node, topic: str) -> list[str]:
    """Names of the nodes that publish on a topic, one for each publisher."""
    return [full_name(publisher) for publisher in node.get_publishers_info_by_topic(topic)]


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
