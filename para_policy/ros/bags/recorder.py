"""Recorder node: writes what a policy node sees and says into a bag."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription

from para_policy.errors import ParaPolicyError
from para_policy.ros.bags.topics import RecordedNodes, recorded_policies
from para_policy.ros.bags.writer import BagEndedError, BagWriter, Storage
from para_policy.ros.domain import check_domain
from para_policy.ros.graph import full_name, qos_conflicts
from para_policy.ros.messages.commands import COMMAND_TYPES
from para_policy.ros.messages.settings import read_settings
from para_policy.ros.messages.types import decode, message_class

_LOOK_S = 0.2
_LATE_S = 5.0
_FLUSH_S = 1.0
_SHOW_S = 0.25
_QUEUE = 100


class Recorder(Node):
    """Subscribes to the topics as they appear and writes their exact bytes.

    Times in the bag are those of receipt on this node's clock.

    Attributes:
        problems: why a topic could not be recorded, by topic.
    """

    def __init__(self, bag: BagWriter, nodes: RecordedNodes, **options: Any) -> None:
        super().__init__("para_policy_recorder", **options)
        self.problems: dict[str, str] = {}
        self._bag = bag
        self._nodes = nodes
        self._wanted = nodes.topics()
        self._executors = nodes.executors
        self._joined: dict[str, Subscription] = {}
        self._late = self.create_timer(_LATE_S, self._tell_absent)
        self.create_timer(_LOOK_S, self.join_topics)
        self.create_timer(_FLUSH_S, bag.flush)
        self.join_topics()

    def join_topics(self) -> None:
        """Subscribe to every wanted topic that is there and not subscribed to yet."""
        for topic, kinds in self.get_topic_names_and_types():
            if topic in self.problems:
                continue
            if topic in self._joined:
                self._hear_all(topic)
            elif topic in self._wanted or COMMAND_TYPES & set(kinds):
                publishers = self.get_publishers_info_by_topic(topic)
                nodes = {full_name(publisher) for publisher in publishers}
                if publishers and (topic in self._wanted or self._executors & nodes):
                    self._join(topic, kinds, [info.qos_profile for info in publishers])

    def _join(self, topic: str, kinds: Sequence[str], offered: Sequence[QoSProfile]) -> None:
        try:
            if len(kinds) > 1:
                raise ParaPolicyError(f"topic {topic} carries {' and '.join(kinds)}")
            kind = message_class(kinds[0])
            self._bag.add_topic(topic, kinds[0], offered)
        except BagEndedError:
            raise
        except ParaPolicyError as error:
            self.problems[topic] = str(error)
            self.get_logger().warning(f"not recorded: {error}")
            return
        self._subscribe(topic, kind, compatible(offered))

    def _subscribe(self, topic: str, kind: Any, qos: QoSProfile) -> None:
        receive = functools.partial(self._receive, topic)
        self._joined[topic] = self.create_subscription(kind, topic, receive, qos, raw=True)

    def _hear_all(self, topic: str) -> None:
        """Ask for less where a publisher came later that offers less: it would never be heard."""
        joined = self._joined[topic]
        if qos_conflicts(self, {topic: joined.qos_profile}):
            offered = [info.qos_profile for info in self.get_publishers_info_by_topic(topic)]
            self.destroy_subscription(joined)
            self._subscribe(topic, joined.msg_type, compatible([joined.qos_profile, *offered]))

    def absent(self) -> dict[str, str]:
        """What is to be said of topics that a replay needs and nobody has published, by topic."""
        there = {
            topic: kinds
            for topic, kinds in self.get_topic_names_and_types()
            if self.count_publishers(topic)
        }
        others = recorded_policies(there)
        found = {}
        for topic in sorted(self._nodes.needed() - self._joined.keys() - self.problems.keys()):
            found[topic] = f"nobody has published {topic}, without which there is no replay"
            if topic == self._nodes.settings_topic and others:
                found[topic] += f"; running: {', '.join(others)} (--namespace, --policy-node)"
        return found

    def _tell_absent(self) -> None:
        """Once, while there is still time to put it right."""
        self._late.cancel()
        for absent in self.absent().values():
            self.get_logger().warning(absent)

    def _receive(self, topic: str, data: bytes) -> None:
        self._bag.write(topic, self.get_clock().now().nanoseconds, data)
        if topic == self._nodes.settings_topic:
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        """Take the topics of the observations from the settings message."""
        topic = self._nodes.settings_topic
        try:
            settings = read_settings(decode(data, message_class("std_msgs/msg/String"), topic).data)
        except ParaPolicyError as error:
            self.get_logger().warning(f"{topic}: {error}")
            return
        robots = tuple(robot for robot in settings.values.get("robots", ()) if robot)
        inputs = self._nodes.inputs or settings.inputs
        namespace, node = self._nodes.namespace, self._nodes.policy_node
        remapped = frozenset(t for topics in settings.topics.values() for t in topics.values())
        self._nodes = RecordedNodes(inputs, namespace, node, robots, remapped)
        self._wanted |= self._nodes.topics()
        self._executors |= self._nodes.executors


def compatible(offered: Sequence[QoSProfile]) -> QoSProfile:
    """Quality of service that each of several publishers can serve, with all that they have in common."""
    reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return QoSProfile(
        depth=_QUEUE,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def record(
    path: Path,
    storage: Storage,
    nodes: RecordedNodes,
    seconds: float | None,
    on_progress: Callable[[Mapping[str, int]], None],
) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Record until SIGINT, SIGTERM or the end of `seconds`; the bag is closed in any case.

    Returns:
        messages by topic, and by topic why it is not recorded.
    Raises:
        InputError: when `path` exists or cannot be written, or for a domain that there is not.
        BagEndedError: when the disk is full.
    """
    check_domain()
    bag = BagWriter(path, storage)
    stop = threading.Event()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    handlers = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    recorder = Recorder(bag, nodes)
    recorder.create_timer(_SHOW_S, lambda: on_progress(bag.counts))
    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    end = float("inf") if seconds is None else time.monotonic() + seconds
    try:
        with closing(bag):
            while not stop.is_set() and time.monotonic() < end:
                executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        print("ROS was shut down; the bag is closed", file=sys.stderr)
    finally:
        executor.shutdown()
        absent = recorder.absent() if rclpy.ok() else {}
        recorder.destroy_node()
        rclpy.try_shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return bag.counts, {**recorder.problems, **absent}
