"""Lifecycle node that turns observations into action chunks."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError, ParaPolicyError
from para_policy.ros import diagnostics
from para_policy.ros.conversions import chunk_to_message
from para_policy.ros.inputs import InputMapping, load_inputs
from para_policy.ros.lifecycle import logged, survive_invalid_requests
from para_policy.ros.parameters import declare, names, value
from para_policy.ros.planner import Plan, Planner
from para_policy.ros.policy_parameters import PARAMETERS, load_planner
from para_policy.ros.qos import for_mode
from para_policy.ros.run import run_node
from para_policy.ros.worker import Worker


class PolicyNode(LifecycleNode):
    """Plans a chunk from the newest observations whenever the one in force runs out.

    Publishes `~/action_chunk` and `~/chunk_info` while active, and `/diagnostics` always, so that
    a failed configuration is seen too. `~/reset` begins a new episode with the parameter `seed`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("policy_node", **options)
        survive_invalid_requests(self)
        declare(self, PARAMETERS)
        self._planner: Planner | None = None
        self._worker: Worker | None = None
        self._undo: list[Callable[[], Any]] = []  # one for each thing made in on_configure
        self._topic_types: dict[str, str] = {}
        self._active = False
        self._problem = ""
        self._reported = ""
        self._last_plan: dict[str, Any] = {}
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
        if value(self, "torch_threads"):
            torch.set_num_threads(value(self, "torch_threads"))
        planner, config = load_planner(self)
        self._joint_names = names(self, "joint_names") or list(config.action_names)
        if len(self._joint_names) != config.action_dim:
            raise InputError(
                f"joint_names are {self._joint_names}; the policy has {config.action_dim} actions"
            )
        inputs = load_inputs(value(self, "inputs_file"), config.inputs)
        planner.warm_up()
        self._planner = planner
        self._create_interface(inputs, config.inputs)
        self._worker = Worker(self._plan, "inference")
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
        if self._worker is not None:
            self._worker.stop()
        while self._undo:
            self._undo.pop()()
        self._topic_types.clear()
        self._last_plan = {}
        self._worker = self._planner = None

    def _create_interface(
        self, inputs: dict[str, InputMapping], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        qos = for_mode(value(self, "lockstep"))
        self._chunks = self.create_lifecycle_publisher(JointTrajectory, "~/action_chunk", qos)
        self._undo.append(functools.partial(self.destroy_lifecycle_publisher, self._chunks))
        self._infos = self.create_lifecycle_publisher(DiagnosticStatus, "~/chunk_info", 10)
        self._undo.append(functools.partial(self.destroy_lifecycle_publisher, self._infos))
        reset = self.create_service(Trigger, "~/reset", self._reset)
        self._undo.append(functools.partial(self.destroy_service, reset))
        for name, mapping in inputs.items():
            subscription = self.create_subscription(
                mapping.converter.message,
                mapping.topic,
                functools.partial(self._observe, name, mapping, shapes[name]),
                mapping.qos(lockstep=value(self, "lockstep")),
            )
            self._undo.append(functools.partial(self.destroy_subscription, subscription))
            self._topic_types[subscription.topic_name] = mapping.type

    def _observe(
        self, name: str, mapping: InputMapping, shape: tuple[int, ...], message: Any
    ) -> None:
        if not self._active or self._planner is None or self._worker is None:
            return
        try:
            self._planner.observe(name, *mapping.read(message, self._now_ns(), shape))
        except ParaPolicyError as error:
            self._planner.reject(name, str(error))
            self._report_change()
        else:
            self._worker.wake()

    def _plan(self) -> None:
        """One look at the newest observations, in the worker thread."""
        if self._planner is None or not self._active:
            return
        try:
            plan = self._planner.plan(self._now_ns())
            if plan is None or not self._active:
                return
            self._publish(plan)
            self._problem = ""
        except ParaPolicyError as error:
            self._problem = f"no chunk: {error}"
        except Exception as error:  # the node lives on: the next observation may be a better one
            self.get_logger().error(traceback.format_exc())
            self._problem = f"no chunk: {error!r}"
        self._report_change()

    def _publish(self, plan: Plan) -> None:
        start_now = value(self, "stamp_mode") == "zero"
        self._chunks.publish(chunk_to_message(plan.chunk, self._joint_names, start_now=start_now))
        self._last_plan = diagnostics.describe_plan(plan, value(self, "sampler"), self._now_ns())
        level = diagnostics.OK if plan.stats.converged else diagnostics.WARN
        self._infos.publish(self._status("action chunk", level, str(plan.stats.status)))

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = f"new episode with seed {self._begin_episode()}"
        response.success = True
        return response

    def _begin_episode(self) -> int:
        seed = int(value(self, "seed"))
        self._problem = ""
        if self._planner is not None:
            self._planner.reset(seed)
        return seed

    def _health(self) -> tuple[bytes, str]:
        """Level and reason: what keeps the node from planning, if anything does."""
        if self._planner is None:
            return (
                (diagnostics.ERROR, self._problem)
                if self._problem
                else (diagnostics.OK, "unconfigured")
            )
        if not self._active:
            return diagnostics.OK, "inactive"
        conflicts = diagnostics.type_conflicts(self, self._topic_types)
        if conflicts:
            return diagnostics.ERROR, "; ".join(conflicts)
        reason = self._planner.hold_reason(self._now_ns()) or self._problem
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
        status = self._status("policy", *self._health())
        self._diagnostics.publish(diagnostics.make_array(self.get_clock().now().to_msg(), status))

    def _status(self, subject: str, level: bytes, message: str) -> DiagnosticStatus:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: {subject}"
        return diagnostics.make_status(
            name, level, message, self._last_plan, value(self, "checkpoint")
        )

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(PolicyNode, args)


if __name__ == "__main__":
    sys.exit(main())
