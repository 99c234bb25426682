"""Lifecycle node that turns observations into action chunks."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from para_policy.errors import ParaPolicyError
from para_policy.ros import diagnostics
from para_policy.ros.configured import Configured, configure
from para_policy.ros.inputs import InputMapping
from para_policy.ros.lifecycle import logged, survive_invalid_requests
from para_policy.ros.live_parameters import change_parameters
from para_policy.ros.parameters import declare, value
from para_policy.ros.plan import Plan
from para_policy.ros.policy_interface import PolicyInterface
from para_policy.ros.policy_parameters import PARAMETERS
from para_policy.ros.run import run_node


class PolicyNode(LifecycleNode):
    """Plans a chunk from the newest observations whenever the one in force runs out.

    Publishes `~/action_chunk` and `~/chunk_info` while active, and `/diagnostics` always, so that
    a failed configuration is seen too. `~/reset` begins a new episode with the parameter `seed`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("policy_node", **options)
        survive_invalid_requests(self)
        declare(self, PARAMETERS)
        self._parts: Configured | None = None
        self._active = False
        self._problem = ""
        self._reported = ""
        self._last_plan: dict[str, Any] = {}
        self.add_on_set_parameters_callback(self._change_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Not on ROS time: a simulation that stands still must be reported, too.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if (
            value(self, "autostart")
            and self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        ):
            self.trigger_activate()

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._problem = ""
        self._parts = configure(self, self._observe, self._reset, self._plan)
        self.get_logger().info(f"policy '{value(self, 'checkpoint')}' is ready")
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        outcome = super().on_activate(state)
        self._begin_episode()
        self._active = True
        return outcome

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self._begin_episode()  # what is being planned now must not come out later
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
        self._problem = self._reported = problem
        self._report()

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()

    def _release(self) -> None:
        """Undo on_configure, however far it came."""
        self._active = False
        if self._parts is not None:
            self._parts.close()
        self._last_plan = {}
        self._parts = None

    def _change_parameters(self, parameters: list[Any]) -> SetParametersResult:
        if self._parts is None:
            return SetParametersResult(successful=True)
        return change_parameters(self, self._parts.policy, self._parts.planner, parameters)

    def _observe(self, name: str, mapping: InputMapping, message: Any) -> None:
        if not self._active or self._parts is None:
            return
        shape = self._parts.policy.config.inputs[name]
        try:
            self._parts.planner.observe(name, *mapping.read(message, self._now_ns(), shape))
        except ParaPolicyError as error:
            self._parts.planner.reject(name, str(error))
            self._report_change()
        else:
            self._parts.worker.wake()

    def _plan(self) -> None:
        """One look at the newest observations, in the worker thread."""
        parts = self._parts
        if parts is None or not self._active:
            return
        try:
            plan = parts.planner.plan(self._now_ns())
            if plan is None or not self._active:
                return
            parts.statistics.add(plan)
            self._publish(parts.interface, plan)
            self._problem = ""
        except ParaPolicyError as error:
            self._problem = f"no chunk: {error}"
        except Exception as error:  # the node lives on: the next observation may be a better one
            self.get_logger().error(traceback.format_exc())
            self._problem = f"no chunk: {error!r}"
        self._report_change()

    def _publish(self, interface: PolicyInterface, plan: Plan) -> None:
        if not plan.withheld:
            interface.publish_chunk(plan.chunk)
        self._last_plan = values = diagnostics.describe_plan(plan, self._now_ns())
        if not plan.withheld:
            level = diagnostics.OK if plan.stats.converged else diagnostics.WARN
            interface.publish_info(
                self._status("action chunk", level, str(plan.stats.status), values)
            )

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = f"new episode with seed {self._begin_episode()}"
        response.success = True
        return response

    def _begin_episode(self) -> int:
        seed = int(value(self, "seed"))
        self._problem = ""
        if self._parts is not None:
            self._parts.planner.reset(seed)
        return seed

    def _health(self) -> tuple[bytes, str]:
        """Level and reason: what keeps the node from planning, if anything does."""
        if self._parts is None:
            return (
                (diagnostics.ERROR, self._problem)
                if self._problem
                else (diagnostics.OK, "unconfigured")
            )
        if not self._active:
            return diagnostics.OK, "inactive"
        conflicts = diagnostics.type_conflicts(self, self._parts.interface.topic_types)
        if conflicts:
            return diagnostics.ERROR, "; ".join(conflicts)
        if reason := self._parts.planner.overrun_reason():
            return diagnostics.ERROR, f"holding: {reason}"
        reason = self._parts.planner.hold_reason(self._now_ns()) or self._problem
        return (diagnostics.WARN, f"holding: {reason}") if reason else (diagnostics.OK, "active")

    def _report_change(self) -> None:
        """Log and publish health at once where it differs from what was last said."""
        level, message = self._health()
        if message != self._reported:
            # Two lines on purpose: rclpy refuses one call site with two severities.
            if level == diagnostics.OK:
                self.get_logger().info(message)
            else:
                self.get_logger().warning(message)
            self._reported = message
            self._report()

    def _report(self) -> None:
        values = dict(self._last_plan)
        if parts := self._parts:
            values |= parts.numbers(self._now_ns())
        status = self._status("policy", *self._health(), values)
        self._diagnostics.publish(diagnostics.make_array(self.get_clock().now().to_msg(), status))

    def _status(
        self, subject: str, level: bytes, message: str, values: Mapping[str, Any]
    ) -> DiagnosticStatus:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: {subject}"
        return diagnostics.make_status(name, level, message, values, value(self, "checkpoint"))

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
