"""Policy node that also tells when it did what; for `benchmarks.ros.overhead`."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_msgs.msg import Int64MultiArray

from para_policy.planning.fleet import Fleet
from para_policy.ros.policy_node import PolicyNode
from para_policy.ros.run import run_node

MARKS = ("heard", "planning", "sampling", "sampled", "published")
"""Times on `~/marks` of each chunk, `time.monotonic_ns`: the callback of the last observation began; the
inference thread looked at the observations; the policy was called; it returned; the chunk was sent."""


class TimedPolicyNode(PolicyNode):
    """Publishes MARKS after each chunk, when they delay nothing any more."""

    def __init__(self, **options: Any) -> None:
        self._marks: dict[str, int] = {}
        super().__init__(**options)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        outcome = super().on_configure(state)
        parts = self._parts
        if parts is None:
            return outcome
        self._tell = self.create_publisher(Int64MultiArray, "~/marks", 10)
        fleet: Fleet = parts.fleet
        topics = next(iter(parts.robots.values())).topics
        self._wrap(parts.loaded.policy, "sample", "sampling", "sampled")
        self._wrap(fleet, "plan", "planning", "")
        self._wrap(topics, "publish_chunk", "", "published")
        self._wrap(topics, "publish_info", "", "")
        return outcome

    def _observe(self, *arguments: Any) -> None:
        self._marks["heard"] = time.monotonic_ns()
        super()._observe(*arguments)

    def _wrap(self, owner: object, name: str, before: str, after: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(call)
        def timed(*arguments: Any, **options: Any) -> Any:
            if before:
                self._marks[before] = time.monotonic_ns()
            outcome = call(*arguments, **options)
            if after:
                self._marks[after] = time.monotonic_ns()
            if name == "publish_info":
                self._tell.publish(Int64MultiArray(data=[self._marks[mark] for mark in MARKS]))
            return outcome

        setattr(owner, name, timed)


if __name__ == "__main__":
    sys.exit(run_node(TimedPolicyNode))
