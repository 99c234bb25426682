"""Quality of service that the nodes agree on."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile

QUEUE = QoSProfile(depth=10)
"""Reliable, for whoever listens at the time."""

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""The last message also reaches a subscriber that connects later.

In lockstep everybody waits for the next message, so that losing one between two nodes that have
not discovered each other yet would stop the world. In real time an old chunk or command must
never reach a newcomer.
"""


def for_mode(lockstep: bool) -> QoSProfile:
    """Quality of service of chunks and commands."""
    return LATCHED if lockstep else QUEUE
