"""Nodes in the test's own process, spun by the test and joined over DDS."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read when the first message package is imported: constructors then check their fields.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import rclpy
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from para_policy.ros.own_node import Question

CONFIG = Path(__file__).resolve().parents[2] / "config" / "ros"
LIMIT_S = 90.0


class Graph:
    """Nodes under test and a probe that talks to them over DDS, all spun by the test."""

    def __init__(self, domain_id: int) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain_id)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []
        self.probe = self.add(lambda **options: Node("probe", **options))

    def add(self, make_node: Callable[..., Node], **parameters: Any) -> Any:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = make_node(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def listen(self, kind: type, topic: str, qos: Any = 10) -> list[Any]:
        """Messages of a topic as they arrive, connected to its publisher if there is one."""
        received: list[Any] = []
        self.probe.create_subscription(kind, topic, received.append, qos)
        return received

    def warnings(self) -> list[str]:
        """What nodes log as a warning, as it comes."""
        texts: list[str] = []

        def hear(message: Log) -> None:
            if message.level == LoggingSeverity.WARN:
                texts.append(message.msg)

        qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.probe.create_subscription(Log, "/rosout", hear, qos)
        return texts

    def talk(self, kind: type, topic: str, qos: Any = 10) -> Any:
        """A publisher that is connected to a subscriber."""
        publisher = self.probe.create_publisher(kind, topic, qos)
        self.wait(lambda: publisher.get_subscription_count() > 0)
        return publisher

    def call(self, kind: type, service: str, request: Any) -> Any:
        client = self.probe.create_client(kind, service)
        self.wait(client.service_is_ready)
        question = Question(client, request, again_s=LIMIT_S / 12)
        self.wait(question.answered)
        return question.answer()

    def wait(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.02)

    def spin_for(self, seconds: float) -> None:
        """Give something that must not happen the time to happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)
