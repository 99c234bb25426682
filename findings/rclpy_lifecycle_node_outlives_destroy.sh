#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): after destroy_node() a LifecycleNode keeps its DDS participant.
#
# A plain Node is gone from the graph with destroy_node(). A LifecycleNode is not, although nothing
# uses it any more: its state machine holds the node's handle, and only goes when Python's garbage
# collector breaks the cycle of the node and its callbacks. Until then the participant's
# sockets and threads live on, and others see a node that nobody answers for.
#
# Seen: UDP sockets of the participant after destroy_node: Node 0, LifecycleNode 2; after gc.collect() 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' \
    ros-jazzy-lifecycle-msgs numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import gc
import os
import re
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node

DOMAIN = 99
PORTS = range(7400 + 250 * DOMAIN, 7650 + 250 * DOMAIN)  # of a participant in this domain


def sockets() -> int:
    own = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(entry))
        except OSError:
            continue
        if found:
            own.add(found[1])
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(line[9] in own and int(line[1].split(":")[1], 16) in PORTS for line in lines)


def left_behind(kind: type) -> tuple[int, int]:
    context = Context()
    rclpy.init(args=[], context=context, domain_id=DOMAIN)
    node = kind("node", context=context)
    node.create_timer(1.0, lambda: node)  # as any callback that is a method
    node.destroy_node()
    del node
    rclpy.try_shutdown(context=context)
    before = sockets()
    gc.collect()
    return before, sockets()


gc.disable()
plain, lifecycle = left_behind(Node), left_behind(LifecycleNode)
print(f"sockets after destroy_node, after gc: Node {plain}, LifecycleNode {lifecycle}")
assert plain == (0, 0), plain
assert lifecycle[0] > 0 and lifecycle[1] == 0, lifecycle
PY
