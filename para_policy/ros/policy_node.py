"""Lifecycle node that turns observations into action chunks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from para_policy.planning.solver import Cancelled
from para_policy.planning.statistics import engine_facts, recording_facts
from para_policy.ros.graph import LATCHED
from para_policy.ros.messages import diagnostics
from para_policy.ros.messages.input_reader import InputReader
from para_policy.ros.parameters.declare import declare, refuse_unknown, value
from para_policy.ros.parameters.executor import PARAMETERS as OF_CHUNK_EXECUTOR
from para_policy.ros.parameters.policy import PARAMETERS
from para_policy.ros.run import run_node
from para_policy.ros.serving.configured import Configured, configure
from para_policy.ros.serving.lifecycle import (
    leave_the_graph,
    logged,
    survive_invalid_requests,
)
from para_policy.ros.serving.planner_settings import change_parameters


class PolicyNode(LifecycleNode):
    """Plans a chunk from the newest observations whenever the one in force runs out.

    | topic or service | made |
    | --- | --- |
    | `~/action_chunk`, `~/chunk_info`, `~/markers` | for each robot, by `serving.topics.RobotTopics` |
    | the topics of the inputs file | for each robot, by `serving.topics.RobotTopics` |
    | `~/reset`: a new episode with `seed` | for each robot, by `serving.topics.RobotTopics` |
    | `/diagnostics`, so that a failed configuration is seen, too | here |
    | `~/settings`, for replays | here |

    Those of a robot live from on_configure to on_cleanup; chunks come out while the node is active.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("policy_node", **options)
        survive_invalid_requests(self)
        declare(self, PARAMETERS)
        refuse_unknown(self, OF_CHUNK_EXECUTOR)
        self._parts: Configured | None = None
        self._active = False
        self._problem = ""  # of the last transition
        self._told = ""  # on ~/settings
        self.add_on_set_parameters_callback(self._change_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._settings = self.create_publisher(String, "~/settings", LATCHED)
        # Not on ROS time: a simulation that stands still must be reported, too.
        self.create_timer(1.0, self._look_around, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if (
            value(self, "autostart")
            and self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        ):
            self.trigger_activate()

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problem = ""
        self._parts = configure(self, self._observe, self._reset, self._plan, self._report)
        engine = self._parts.loaded.policy.runtime.engine.label
        self.get_logger().info(f"policy '{value(self, 'checkpoint')}' is ready, engine {engine}")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        outcome = super().on_activate(state)
        self._begin_episodes()
        self._active = True
        self._told = ""
        self._tell_settings()
        return outcome

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self._begin_episodes()  # what is being planned now must not come out later
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reported where it happened; back to unconfigured, from where it can be tried again."""
        return TransitionCallbackReturn.SUCCESS

    def fail(self, problem: str) -> None:
        """After a failed transition: release everything, keep the problem for diagnostics."""
        self._release()
        self._problem = problem
        self._report()

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()
        leave_the_graph(self)

    def _release(self) -> None:
        """Undo on_configure, however far it came."""
        self._active = False
        if self._parts is not None:
            self._parts.close()
        self._parts = None

    def _change_parameters(self, parameters: list[Any]) -> SetParametersResult:
        parts = self._parts
        if parts is None:
            return SetParametersResult(successful=True)
        result = change_parameters(self, parts.loaded, parts.fleet, parameters)
        self._tell_settings()
        return result

    def _tell_settings(self) -> None:
        """Publish what a replay needs to know, where it has changed."""
        if self._parts is None or not self._active:
            return
        message = self._parts.fleet.settings.message
        if message != self._told:
            self._told = message
            self._settings.publish(String(data=message))

    def _observe(self, robot: str, name: str, reader: InputReader, message: Any) -> None:
        parts = self._parts
        if parts is None or not self._active:
            return
        if parts.robots[robot].observe(name, reader, message):
            parts.worker.wake()

    def _plan(self) -> None:
        """One look at the newest observations, in the worker thread."""
        parts = self._parts
        if parts is None or not self._active:
            return
        try:
            plans = parts.fleet.plan(self._now_ns())
        except Cancelled:
            return
        if self._parts is not parts or not self._active:
            return  # taken down meanwhile; perhaps up again, with other parts
        of_robots = [(parts.robots[name], plan) for name, plan in plans.items()]
        of_use = [(robot, plan) for robot, plan in of_robots if robot.publish(plan)]
        for robot, plan in of_use:  # only now: every robot waits for its chunk
            robot.tell(plan)
        for robot in parts.robots.values():
            robot.report_change()

    def _reset(
        self, robot: str, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        seed = int(value(self, "seed"))
        if self._parts is not None:
            self._parts.robots[robot].begin_episode(seed)
        response.message = f"new episode with seed {seed}"
        response.success = True
        return response

    def _begin_episodes(self) -> None:
        if self._parts is not None:
            for robot in self._parts.robots.values():
                robot.begin_episode(int(value(self, "seed")))

    def _look_around(self) -> None:
        """Once a second: what has changed in the graph, and a heartbeat."""
        if self._parts is not None and self._active:
            for robot in self._parts.robots.values():
                robot.look_around()
                robot.report_change()
        self._report()

    def _report(self) -> None:
        self._diagnostics.publish(
            diagnostics.make_array(self.get_clock().now().to_msg(), *self._statuses())
        )

    def _statuses(self) -> list[DiagnosticStatus]:
        """One for each robot while there are any, else one for the node."""
        parts = self._parts
        if parts is not None:
            engine = engine_facts(parts.loaded.policy)
            engine |= recording_facts(parts.fleet.settings.sampler)
            statuses = []
            for robot in parts.robots.values():
                level, said = robot.health() if self._active else (diagnostics.OK, "inactive")
                statuses.append(robot.status("policy", level, said, robot.numbers() | engine))
            return statuses
        name = f"{self.get_fully_qualified_name().lstrip('/')}: policy"
        level = diagnostics.ERROR if self._problem else diagnostics.OK
        message = self._problem or "unconfigured"
        return [diagnostics.make_status(name, level, message, {}, value(self, "checkpoint"))]

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
