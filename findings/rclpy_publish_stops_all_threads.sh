#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): while one thread publishes, no other thread of the process runs any Python.
#
# Publisher.publish keeps the interpreter's lock through the whole of rcl_publish: turning the message into
# bytes, handing it to DDS, and waiting where DDS waits (a reliable subscriber that does not read). So
# neither a MultiThreadedExecutor nor a thread of one's own keeps a control loop going beside a large
# image, and a subscriber that hangs can stop it. Waiting for work (spin) does release the lock.
#
# Seen: publishing 100 MB takes 0.1 to 0.4 s, and a thread that ticks every millisecond stands still for
# all of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' \
    ros-jazzy-sensor-msgs numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import array
import threading
import time

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

rclpy.init(domain_id=97)
node = Node("camera")
publisher = node.create_publisher(Image, "image", 1)
node.create_subscription(Image, "image", lambda _: None, 1)
while not publisher.get_subscription_count():
    rclpy.spin_once(node, timeout_sec=0.1)
image = Image(step=1, data=array.array("B", bytes(100_000_000)))
gaps: list[float] = []
over = threading.Event()


def tick() -> None:
    last = time.perf_counter()
    while not over.is_set():
        time.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now


def longest_gap(work) -> tuple[float, float]:
    time.sleep(0.05)
    gaps.clear()
    begun = time.perf_counter()
    work()
    took = time.perf_counter() - begun
    time.sleep(0.05)
    return took, max(gaps)


threading.Thread(target=tick, daemon=True).start()
waits = longest_gap(lambda: rclpy.spin_once(node, timeout_sec=0.3))
published = longest_gap(lambda: publisher.publish(image))
over.set()
print("time of the call and longest gap of the other thread, s:")
print(f"spin {waits[0]:.3f} {waits[1]:.3f}; publish {published[0]:.3f} {published[1]:.3f}")
assert published[0] > 0.02
assert published[1] > 0.9 * published[0]
assert waits[0] > 0.25 > waits[1]
PY
