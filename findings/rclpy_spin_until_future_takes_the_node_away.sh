#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): rclpy.spin_until_future_complete(node, ...) takes the node from its own executor, for ever.
#
# A node is in one executor at a time. rclpy.spin_until_future_complete, and rclpy.spin_once, put it in a global one,
# which removes it from the one that runs it, and do not put it back. Called from another thread than the one that
# spins, as to await a service, it works: the answer comes. From then on the node has no executor. Its
# timers, subscriptions and services stay silent; the executor goes on with its other nodes, and reports
# nothing. To wait for the future with an Event in add_done_callback leaves the node where it is.
#
# Seen: a timer of 20 Hz: 10 calls in half a second before, none afterwards, and get_nodes() without the node;
# about 10 again after add_node, and when the future was awaited with an Event.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' ros-jazzy-std-srvs numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import threading
import time

import rclpy
from rclpy.executors import MultiThreadedExecutor
from rclpy.task import Future
from std_srvs.srv import Trigger

rclpy.init(domain_id=99)
robot, gripper = rclpy.create_node("robot"), rclpy.create_node("gripper")
gripper.create_service(Trigger, "close", lambda request, response: response)
client = robot.create_client(Trigger, "close")
calls = []
robot.create_timer(0.05, lambda: calls.append(time.monotonic()))
executor = MultiThreadedExecutor(2)
executor.add_node(robot)
executor.add_node(gripper)
threading.Thread(target=executor.spin, daemon=True).start()
assert client.wait_for_service(timeout_sec=20)


def timer_calls() -> int:
    before = len(calls)
    time.sleep(0.5)
    return len(calls) - before


def with_an_event(future: Future) -> None:
    answered = threading.Event()
    future.add_done_callback(lambda _: answered.set())
    answered.wait(10)


def with_rclpy(future: Future) -> None:
    rclpy.spin_until_future_complete(robot, future, timeout_sec=10)


print("timer calls in half a second, before:", timer_calls())
for await_answer, runs in ((with_an_event, True), (with_rclpy, False)):
    future = client.call_async(Trigger.Request())
    await_answer(future)
    assert future.done()
    count, nodes = timer_calls(), {node.get_name() for node in executor.get_nodes()}
    print(f"after {await_answer.__name__}: {count} calls; nodes of the executor: {sorted(nodes)}")
    assert ("robot" in nodes) == runs and "gripper" in nodes
    assert count > 3 if runs else count == 0

executor.add_node(robot)
again = timer_calls()
print(f"after add_node: {again} calls")
assert again > 3
executor.shutdown()
rclpy.shutdown()
PY
