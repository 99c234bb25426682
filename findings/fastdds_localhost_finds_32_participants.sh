#!/usr/bin/env bash
# ROS 2 Jazzy on Fast DDS: with ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST (no multicast) only the first
# 32 participants of a domain on a machine are looked for. One of them and a later one find each
# other, as the later one speaks first; two later ones never do, and nothing says so.
#
# Seen: after 31 other participants a publisher and a subscriber connect in 0.1 s; after 32 they are
# not connected in 12 s. With as many processes instead of contexts in one it is the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' \
    ros-jazzy-std-msgs numpy==2.4.6
cat > "$folder/crowd.py" <<'PY'
import os
import sys
import time

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import String


def node(name: str) -> Node:
    context = Context()  # a participant of its own
    rclpy.init(args=[], context=context, domain_id=98)
    return Node(name, context=context, enable_rosout=False, start_parameter_services=False)


crowd = [node(f"other_{k}") for k in range(int(sys.argv[1]))]
talker, listener = node("talker"), node("listener")
publisher = talker.create_publisher(String, "topic", 10)
subscription = listener.create_subscription(String, "topic", print, 10)
end = time.monotonic() + 12
while time.monotonic() < end and not publisher.get_subscription_count():
    time.sleep(0.05)
print("connected" if publisher.get_subscription_count() else "apart", flush=True)
os._exit(0)
PY
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
near=$("$folder/venv/bin/python" "$folder/crowd.py" 31)
far=$("$folder/venv/bin/python" "$folder/crowd.py" 32)
echo "LOCALHOST: after 31 others $near, after 32 others $far"
[ "$near" = connected ] && [ "$far" = apart ]
