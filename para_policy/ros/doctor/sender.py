"""The other process of the DDS check: sends until it is ended."""

from __future__ import annotations

import sys
import time

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

HEIGHT, WIDTH = 480, 640
PERIOD_S = 1 / 30
IMAGES = 30
_LIFE_S = 60.0
"""An end, should the process that asked be killed."""


def topic(token: str, kind: str) -> str:
    """Topic of one run of the check: two runs at a time do not meet."""
    return f"/para_policy_doctor/run_{token}/{kind}"


def image_qos(*, reliable: bool) -> QoSProfile:
    """As a camera publishes."""
    chosen = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=5, reliability=chosen)


def send(token: str, kind: str) -> None:
    """Send short texts ("text"), or images ("best_effort", "reliable"), once somebody listens."""
    rclpy.init(args=[])
    node = rclpy.create_node(f"para_policy_doctor_sender_{token}", enable_rosout=False)
    message: String | Image = String(data=token)
    qos = QoSProfile(depth=10)
    if kind != "text":
        message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
        message.data = bytes(3 * WIDTH * HEIGHT)
        qos = image_qos(reliable=kind == "reliable")
    publisher = node.create_publisher(type(message), topic(token, kind), qos)
    end = time.monotonic() + _LIFE_S
    sent = 0
    while rclpy.ok() and time.monotonic() < end:
        if publisher.get_subscription_count() and (kind == "text" or sent < IMAGES):
            publisher.publish(message)
            sent += 1
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2])
