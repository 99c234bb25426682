#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): asked for ten parameters of which a node has nine, it answers with none.
#
# The service get_parameters of a node returns an empty list when one of the names is not declared: no
# error, no NOT_SET in its place. A client that pairs names with values gets nothing and cannot tell
# it from a node without parameters. AsyncParameterClient hands on the same. To ask a node of which
# the version is not known, list its parameters first.
#
# Seen: GetParameters of [a, b]: 2 values; of [a, b, c]: 0 values, c alone is not declared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter_client import AsyncParameterClient

rclpy.init(domain_id=97)
server, asker = Node("server"), Node("asker")
for name in ("a", "b"):
    server.declare_parameter(name, 1.0)
executor = SingleThreadedExecutor()
executor.add_node(server)
executor.add_node(asker)
client = AsyncParameterClient(asker, "server")


def values(*names: str) -> int:
    future = client.get_parameters(list(names))
    executor.spin_until_future_complete(future, timeout_sec=20)
    return len(future.result().values)


while not client.services_are_ready():
    executor.spin_once(timeout_sec=0.1)
known, one_unknown = values("a", "b"), values("a", "b", "c")
print(f"values of [a, b]: {known}; of [a, b, c]: {one_unknown}")
rclpy.shutdown()
assert (known, one_unknown) == (2, 0)
PY
