"""Robot of a policy node: its observations, its chunks, and its health."""

from __future__ import annotations

import math
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.lifecycle import LifecycleNode

from para_policy.errors import InputError, ParaPolicyError
from para_policy.planning.chunks import PlannedChunk
from para_policy.planning.planner import Planner
from para_policy.planning.statistics import PlanStatistics
from para_policy.ros.messages import diagnostics
from para_policy.ros.messages.input_reader import InputReader
from para_policy.ros.parameters.declare import value
from para_policy.ros.serving.topics import RobotTopics

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_SAY_AGAIN_S = 1.0
"""Time before the same state is told anew."""


class ServedRobot:
    """Carries observations to a planner, and its plans to the topics.

    Args:
        label: what diagnostics call the robot; empty where there is only one.
        rivals_hold: true where an input that two nodes send is refused, false where that is only
            told.
        report: publishes the health of all robots.
    """

    def __init__(
        self,
        node: LifecycleNode,
        planner: Planner,
        topics: RobotTopics,
        *,
        label: str,
        checkpoint: str,
        rivals_hold: bool,
        report: Callable[[], None],
    ) -> None:
        self.planner = planner
        self.topics = topics
        self._last_plan: dict[str, Any] = {}
        self._node = node
        self._label = label
        self._checkpoint = checkpoint
        self._report = report
        self._statistics = PlanStatistics()
        self._publishing = threading.Lock()  # of a chunk: begins and ends within one episode
        self._problem = ""
        self._conflicts: list[str] = []
        # Simulated time moves in steps of /clock: what is measured within one seems to be ahead.
        self._simulated = bool(value(node, "use_sim_time"))
        self._rivals_hold = rivals_hold
        self._rival_inputs: dict[str, str] = {}
        self._unlike = ""  # what is unlike the demonstrations in the last observation
        self._reported = ""
        self._said_s: dict[str, float] = {}  # states of the last second, and when they were told

    def observe(self, name: str, reader: InputReader, message: Any) -> bool:
        """Take in a message; whether it brought an observation."""
        now_ns = self._now_ns()
        received_ns = None if self._simulated else now_ns
        try:
            if self._rivals_hold and name in self._rival_inputs:
                raise InputError(self._rival_inputs[name])
            found = reader.read(message, now_ns)
            if found is None:
                self.planner.pass_over(name, reader.passed_over)
                return False
            self.planner.observe(name, *found, received_ns)
        except Exception as error:  # whatever a message holds, other robots of the node go on
            self.planner.reject(name, self._in_words(error))
            self.report_change()
            return False
        return True

    def begin_episode(self, seed: int) -> None:
        """Forget everything; no chunk of the last episode is published from the return on."""
        self._problem = ""
        self._unlike = ""
        self.topics.forget()
        with self._publishing:
            self.planner.reset(seed)

    def publish(self, plan: PlannedChunk | Exception) -> bool:
        """Publish the chunk of a plan, unless it is withheld; whether the plan is still of use.

        The robot waits for it, and nobody for what `tell` says.
        """
        if isinstance(plan, Exception):
            return True
        with self._publishing:
            if plan.episode != self.planner.episode:
                return False
            if not plan.withheld:
                self.topics.publish_chunk(plan.chunk)
        return True

    def tell(self, plan: PlannedChunk | Exception) -> None:
        """Say what is to be said of a plan that was published, or why there is none."""
        if isinstance(plan, Exception):
            self._problem = f"no chunk: {self._in_words(plan)}"
            return
        self._problem = ""
        self._unlike = "; ".join(filter(None, (plan.spacing_warning, plan.scale_warning)))
        self._statistics.add(plan)
        self._last_plan = diagnostics.describe_plan(plan, self._now_ns())
        if plan.withheld:
            return
        well = plan.stats.converged and not self._unlike
        level = diagnostics.OK if well else diagnostics.WARN
        said = "; ".join(filter(None, (str(plan.stats.status), self._unlike)))
        self.topics.publish_info(self.status("action chunk", level, said, self._last_plan))

    def _in_words(self, error: Exception) -> str:
        """A defect that is not ours to explain is also logged with its traceback."""
        if isinstance(error, ParaPolicyError):
            return str(error)
        text = "".join(traceback.format_exception(error))
        self._node.get_logger().error(text, throttle_duration_sec=1.0)
        return repr(error)

    def look_around(self) -> None:
        """Ask the graph for publishers that cannot be heard and for rivals: slow, so not always."""
        self._conflicts = self.topics.conflicts()
        self._rival_inputs = self.topics.rival_inputs()
        if self._rivals_hold:
            for name, problem in self._rival_inputs.items():
                self.planner.reject(name, problem)

    def health(self) -> tuple[bytes, str]:
        """Level and reason: what keeps the robot from being planned for, if anything does."""
        if self._conflicts:
            return diagnostics.ERROR, "; ".join(self._conflicts)
        if reason := self.planner.withheld_reason():
            return diagnostics.ERROR, f"holding: {reason}"
        if reason := self.planner.hold_reason(self._now_ns()) or self._problem:
            return diagnostics.WARN, f"holding: {reason}"
        warnings = [*self._rival_inputs.values(), *self.planner.warnings()]
        warnings += [self._unlike] if self._unlike else []
        if warnings:
            return diagnostics.WARN, f"active, but {'; '.join(warnings)}"
        return diagnostics.OK, "active"

    def report_change(self) -> None:
        """Log and publish health at once where it differs from what was last said."""
        level, message = self.health()
        kind = _NUMBER.sub("", message)  # an age that grows is nothing new
        now_s = time.monotonic()
        # A state that comes and goes with every message fills no log: it is told once a second.
        if kind == self._reported or now_s < self._said_s.get(kind, -math.inf) + _SAY_AGAIN_S:
            return
        self._reported = kind
        self._said_s = {k: at for k, at in self._said_s.items() if now_s < at + _SAY_AGAIN_S}
        self._said_s[kind] = now_s
        said = f"{self._label}: {message}" if self._label else message
        # Two lines on purpose: rclpy refuses one call site with two severities.
        if level == diagnostics.OK:
            self._node.get_logger().info(said)
        else:
            self._node.get_logger().warning(said)
        self._report()

    def numbers(self) -> dict[str, Any]:
        """Values for `/diagnostics`: the last chunk, the last 200, and the ages of observations."""
        now_ns = self._now_ns()
        of_inputs = self.planner.observation_ages_s(now_ns) | self.topics.joint_ages_s(now_ns)
        ages = {f"observation_age_ms/{name}": 1e3 * age_s for name, age_s in of_inputs.items()}
        return self._last_plan | self._statistics.values() | ages

    def status(self, subject: str, level: bytes, message: str, values: Mapping[str, Any]) -> Any:
        """A diagnostic of this robot about `subject`."""
        node = self._node.get_fully_qualified_name().lstrip("/")
        name = f"{node}: {subject} {self._label}".rstrip()
        return diagnostics.make_status(name, level, message, values, self._checkpoint)

    def close(self) -> None:
        """Take the connections down."""
        self.topics.close()

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
