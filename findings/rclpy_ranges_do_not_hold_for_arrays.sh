#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): a range in the description of an array parameter is shown, and never checked.
#
# A descriptor with floating_point_range is accepted for a double array, ros2 param describe prints it, and
# values outside are set without a word; of a single double the same are refused. A limit for each joint,
# a natural array, has to be checked by the node itself.
#
# Seen: 5.0 in a range of 0 to 1: refused for a double, taken for a double array.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

rclpy.init(domain_id=97)
node = Node("arm")
floats = ParameterDescriptor(
    floating_point_range=[FloatingPointRange(from_value=0.0, to_value=1.0)]
)
whole = ParameterDescriptor(integer_range=[IntegerRange(from_value=0, to_value=10, step=1)])
node.declare_parameter("one", 0.5, floats)
node.declare_parameter("all", [0.5, 0.5], floats)
node.declare_parameter("counts", [5], whole)


def taken(name: str, value) -> bool:
    (result,) = node.set_parameters([rclpy.Parameter(name, value=value)])
    return bool(result.successful)


found = taken("one", 5.0), taken("all", [5.0, -5.0]), taken("counts", [99])
print(f"out of range: a double {found[0]}, a double array {found[1]}, an integer array {found[2]}")
print("described:", node.describe_parameter("all").floating_point_range)
assert found == (False, True, True)
assert node.describe_parameter("all").floating_point_range
PY
