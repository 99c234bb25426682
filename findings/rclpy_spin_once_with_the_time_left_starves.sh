#!/usr/bin/env bash
# rclpy 7.1 (ROS 2 Jazzy): spin_once runs no subscription while a timer is due, if its timeout changes.
#
# A wait finds all that is ready; each spin_once then runs one of it, timers first. The rest is kept for
# the next call only if that has the same timeout_sec. With another one, such as the time that is left until
# a deadline, the executor waits anew and begins with the timers again. A timer whose callback takes
# longer than its period (a policy at 100 Hz that needs 12 ms) is always due: the loop turns as fast as ever,
# and no message, service request or action goal is ever handled. With a fixed timeout, and in spin(),
# all get their turn.
#
# Seen: of 20 messages that were published meanwhile, 20 arrive with timeout_sec=0.5, none with
# timeout_sec=end - time.monotonic().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    'ros-jazzy-rclpy[fastrtps]==7.1.6' 'ros-jazzy-rmw-fastrtps-cpp==8.4.3' numpy==2.4.6
ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST "$folder/venv/bin/python" - <<'PY'
import time

import rclpy
from builtin_interfaces.msg import Duration

PERIOD_S, CALLBACK_S, MESSAGES = 0.01, 0.012, 20


def arrived(name: str, fixed: bool) -> tuple[int, int]:
    """Messages that arrive while the node spins for two seconds, and calls of its timer."""
    node = rclpy.create_node(name)
    messages, calls = [], []
    node.create_subscription(Duration, name, messages.append, MESSAGES)
    publisher = node.create_publisher(Duration, name, MESSAGES)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.01)

    def slow() -> None:
        calls.append(None)
        time.sleep(CALLBACK_S)

    node.create_timer(PERIOD_S, slow)
    start = time.monotonic()
    end = start + 2
    sent = 0
    while (now := time.monotonic()) < end:
        if sent < MESSAGES and calls and now > start + 0.05 * sent:
            publisher.publish(Duration(sec=sent))
            sent += 1
        rclpy.spin_once(node, timeout_sec=0.5 if fixed else end - now)
    assert sent == MESSAGES
    node.destroy_node()
    return len(messages), len(calls)


rclpy.init(domain_id=97)
for name, fixed in {"fixed": True, "left": False}.items():
    messages, calls = arrived(name, fixed)
    print(f"timeout_sec {name}: {messages} of {MESSAGES} messages, timer called {calls} times")
    assert messages == (MESSAGES if fixed else 0)
    assert calls > 50
PY
