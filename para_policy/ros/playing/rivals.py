"""Rivals of chunk_executor: other publishers on the topic of its commands."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription

from para_policy.ros.graph import NAMELESS, publishers

_LEASE_S = 30.0
"""Longer than DDS keeps a killed process in the graph (20 s with the defaults of Fast DDS)."""
_OWN = 2
"""Messages of our own that may be heard although they were sent before anybody listened."""


class CommandRivals:
    """Whoever else publishes on the topic of our commands would pull the robot to and fro.

    A node of another name is a rival as soon as the graph shows it, whether it sends or not: two
    executors of which one is disabled are one service call away from a fight. A publisher of our
    own name may be a process that was killed, of which we are the successor. It is a rival once
    more commands are heard than we send, or when it is there for longer than DDS remembers the dead.

    Args:
        commands: our publisher.
        message: its type.
        qos: quality of service to listen with.
    """

    def __init__(self, node: Node, commands: Publisher, message: type, qos: Any) -> None:
        self._node = node
        self._commands = commands
        self._message = message
        self._qos = qos
        self._ear: Subscription | None = None  # while somebody of our name is there
        self._since = 0.0
        self._balance = 0  # messages that were heard and not sent by us

    def count_sent(self) -> None:
        """To be called for every command that we publish."""
        self._balance -= 1

    def problem(self) -> str:
        """Names of the rivals, and what to do; '': none."""
        topic, own = self._commands.topic_name, self._node.get_fully_qualified_name()
        names = [name for name in publishers(self._node, topic) if NAMELESS not in name]
        rivals = sorted(set(names) - {own})
        self._listen(names.count(own) > 1)
        if self._ear is not None and self._is_alive():
            rivals.append(f"another {own}")
        if not rivals:
            return ""
        return (
            f"{', '.join(rivals)} may send commands on {topic}, too; expected {own} alone: stop the "
            "others, or put a multiplexer between them and the robot"
        )

    def _listen(self, wanted: bool) -> None:
        if wanted and self._ear is None:
            self._since, self._balance = time.monotonic(), 0
            self._ear = self._node.create_subscription(
                self._message, self._commands.topic_name, self._hear, self._qos
            )
        elif not wanted and self._ear is not None:
            self._node.destroy_subscription(self._ear)
            self._ear = None

    def _hear(self, _: Any) -> None:
        self._balance += 1

    def _is_alive(self) -> bool:
        return self._balance > _OWN or time.monotonic() - self._since > _LEASE_S
