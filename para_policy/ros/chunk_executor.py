"""Node that plays action chunks as commands, each action at its own absolute time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.control.executor import ChunkPlayer
from para_policy.errors import ParaPolicyError
from para_policy.ros import diagnostics
from para_policy.ros.conversions import message_to_chunk, stamp_to_ns
from para_policy.ros.parameters import NO_NAMES, Parameter, declare, names, value
from para_policy.ros.qos import for_mode
from para_policy.ros.run import run_node

PARAMETERS = (
    Parameter("command_rate_hz", 50.0, "Commands per second; not used in lockstep.", (0.1, 1000.0)),
    Parameter("auto_enable", False, "Play chunks from the start, without ~/enable."),
    Parameter("joint_names", NO_NAMES, "Joints that a chunk must have, in order; empty: any."),
    Parameter("lockstep", False, "Send one command for each tick of /clock."),
)


class ChunkExecutor(Node):
    """Plays `action_chunk` on `~/command`: the action that is due, held until the next one is.

    When none is due (no chunk, a late one, an invalid one, not enabled) nothing is published and
    the controller behind it holds its last set-point.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("chunk_executor", **options)
        declare(self, PARAMETERS)
        self._joint_names = names(self, "joint_names")
        self._enabled = bool(value(self, "auto_enable"))
        self._lockstep = bool(value(self, "lockstep"))
        self._player = ChunkPlayer(len(self._joint_names) or None)
        self._tick_ns = 0  # lockstep: the newest time that the simulator has announced
        self._refusal = ""
        self._refused = 0
        self._playing = False
        qos = for_mode(self._lockstep)
        self._commands = self.create_publisher(Float64MultiArray, "~/command", qos)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(JointTrajectory, "action_chunk", self._receive, qos)
        self.create_service(SetBool, "~/enable", self._enable)
        if self._lockstep:
            self.create_subscription(ClockMessage, "/clock", self._follow_clock, 10)
        else:
            self.create_timer(1.0 / value(self, "command_rate_hz"), self._play)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _receive(self, message: JointTrajectory) -> None:
        now_ns = self._now_ns()
        try:
            chunk = message_to_chunk(message, now_ns, self._joint_names)
            if self._lockstep:
                # The chunk may overtake the tick that it was planned for; its stamp tells the
                # simulated time as well as /clock does.
                self._tick_ns = now_ns = max(now_ns, chunk.stamp_ns)
            self._player.offer(chunk, now_ns)
        except ParaPolicyError as error:
            self._refused += 1
            if str(error) != self._refusal:
                self.get_logger().warning(f"chunk refused: {error}")
            self._refusal = str(error)
            self._report()
            return
        self._refusal = ""
        if self._lockstep:
            self._answer_tick()

    def _follow_clock(self, message: ClockMessage) -> None:
        self._tick_ns = stamp_to_ns(message.clock)
        self._answer_tick()

    def _answer_tick(self) -> None:
        """Send the command of this tick, once."""
        if self._enabled:
            self._send(self._player.answer_tick(self._tick_ns))

    def _play(self) -> None:
        self._send(self._player.action_at(self._now_ns()) if self._enabled else None)

    def _send(self, action: Any) -> None:
        self._playing = action is not None
        if action is not None:
            self._commands.publish(Float64MultiArray(data=action.tolist()))

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = "enabled" if self._enabled else "disabled: holding"
        self._report()
        return response

    def _health(self) -> tuple[bytes, str]:
        if not self._enabled:
            return diagnostics.OK, "disabled: call ~/enable"
        if self._refusal:
            return diagnostics.WARN, f"chunk refused: {self._refusal}"
        if self._player.chunk is None:
            return diagnostics.WARN, "holding: no chunk yet"
        return (
            (diagnostics.OK, "playing")
            if self._playing
            else (diagnostics.WARN, "holding: chunk ran out")
        )

    def _report(self) -> None:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: commands"
        status = diagnostics.make_status(name, *self._health(), {"refused_chunks": self._refused})
        self._diagnostics.publish(diagnostics.make_array(self.get_clock().now().to_msg(), status))

    def _now_ns(self) -> int:
        return self._tick_ns if self._lockstep else int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(ChunkExecutor, args)


if __name__ == "__main__":
    sys.exit(main())
