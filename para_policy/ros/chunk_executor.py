"""Node that plays action chunks as commands, each action at its own absolute time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError, ParaPolicyError
from para_policy.execution.timing import CommandTiming
from para_policy.ros.graph import ChunkSources, publishers, qos_for
from para_policy.ros.messages import diagnostics
from para_policy.ros.messages.conversions import message_to_chunk, stamp_to_ns
from para_policy.ros.parameters.declare import declare, refuse_unknown, value
from para_policy.ros.parameters.executor import PARAMETERS
from para_policy.ros.parameters.policy import PARAMETERS as OF_POLICY_NODE
from para_policy.ros.playing.controllers import CommandTopics
from para_policy.ros.playing.health import Health
from para_policy.ros.playing.present import PresentState
from para_policy.ros.playing.setup import load_setup, unmixed_warning
from para_policy.ros.run import run_node

_WATCH_S = 0.2
"""Time after which a rival of our commands is noticed, and the graph knows of it."""


class ChunkExecutor(Node):
    """Plays `action_chunk` on `~/command`, or `command_topics`: in each period the action that is due.

    When none is due (no chunk, a late one, an invalid one, not enabled) or it would break a limit,
    the robot holds: see `para_policy.execution.commander`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("chunk_executor", **options)
        declare(self, PARAMETERS)
        refuse_unknown(self, OF_POLICY_NODE)
        self._setup = load_setup(self)
        if self._setup.unmixed:
            self.get_logger().warning(unmixed_warning(self._setup.unmixed))
        self._player = self._setup.player
        self._commander = self._setup.commander
        self._lockstep = self._setup.lockstep
        self._timing = CommandTiming(self._setup.period_s)
        self._sources = ChunkSources()
        self._health = Health(
            self._commander, self._player, self._timing, self._setup.max_future_ns
        )
        self._joint_names = self._setup.joint_names  # or, where none are given, the first chunk's
        self._tick_ns = 0  # lockstep: the newest time that the simulator has announced
        qos = qos_for(self._lockstep)
        self._commands = CommandTopics(self, self._setup.controllers, qos)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        receive = cast(Any, self._receive)  # rclpy types no callback with message info
        self._chunks = self.create_subscription(JointTrajectory, "action_chunk", receive, qos)
        self.create_service(SetBool, "~/enable", self._enable)
        self._present = PresentState(
            self,
            self._setup.states,
            self._setup.coordinates,
            self._now_ns,
            max_ahead_ns=self._setup.max_state_age_ns,
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._lockstep:
            self.create_subscription(ClockMessage, "/clock", self._follow_clock, 10)
        else:
            # A system clock that is set back would stop a timer that runs on it.
            clock = self.get_clock() if value(self, "use_sim_time") else steady
            self.create_timer(self._setup.period_s, self._play, clock=clock)
        self._state_rivals = ""
        self.create_timer(_WATCH_S, self._watch, clock=steady)
        self.create_timer(1.0, self._look_around, clock=steady)

    def destroy_node(self) -> None:
        """Without commands a velocity goes on: take it back, as a robot that holds does."""
        if self.context.ok():
            self._commander.enable(False)
            self._send(self._commander.command(self._now_ns()), self._now_ns())
            self._commands.wait_until_heard()
        super().destroy_node()

    def _receive(self, message: JointTrajectory, info: dict[str, Any]) -> None:
        now_ns = self._now_ns()
        self._sources.heard(info.get("publication_sequence_number"))
        if self._has_chunk_rivals():
            return
        try:
            chunk = message_to_chunk(message, now_ns, self._joint_names)
            self._check_order(message.joint_names)
            if self._lockstep:
                # The chunk may overtake the tick that it was planned for; its stamp tells the
                # simulated time as well as /clock does.
                self._tick_ns = now_ns = max(now_ns, chunk.stamp_ns)
            self._player.offer(chunk, now_ns)
            self._joint_names = list(message.joint_names)
        except ParaPolicyError as error:
            if self._health.refuse(str(error)):
                self.get_logger().warning(f"chunk refused: {error}")
            self._report()
            return
        self._health.accept()
        self._compare_clocks("the chunk", chunk.stamp_ns - now_ns)
        if self._lockstep:
            self._answer_tick()

    def _check_order(self, joints: Sequence[str]) -> None:
        """Refuse a chunk that has the joints whose states are heard, in another order."""
        states = self._setup.state_joints
        if sorted(joints) == sorted(states) and list(joints) != states:
            raise InputError(
                f"chunk is for joints {list(joints)}, state_joints in another order: {states}"
            )

    def _has_chunk_rivals(self) -> bool:
        """True where two nodes send chunks, which would pull the robot to and fro: hold then."""
        problem = self._sources.problem(publishers(self, self._chunks.topic_name))
        if problem:
            self._player.clear()
        if self._health.find_rivals("chunks", problem):
            self.get_logger().error(problem)
            self._report()
        return bool(problem)

    def _command_rivals(self) -> str:
        """Who else may command the robot: hold then, until a person has put that right."""
        problem = self._commands.rivals()
        if problem and self._commander.enabled:
            self._commander.latch(problem)
        if self._health.find_rivals("commands", problem):
            self.get_logger().error(problem)
            self._report()
        return problem

    def _watch(self) -> None:
        """Several times a second."""
        self._command_rivals()
        self._state_rivals = self._present.rivals()
        for topic, ahead_ns in self._present.ahead_ns().items():
            self._compare_clocks(f"a message on {topic}", ahead_ns)

    def _compare_clocks(self, what: str, ahead_ns: int) -> None:
        """Simulated time moves in steps of /clock, and so seems to be behind."""
        if not value(self, "use_sim_time"):
            self._health.compare_clocks(what, ahead_ns)

    def _look_around(self) -> None:
        """Once a second."""
        self._has_chunk_rivals()
        self._report()

    def _follow_clock(self, message: ClockMessage) -> None:
        self._tick_ns = stamp_to_ns(message.clock)
        self._answer_tick()

    def _answer_tick(self) -> None:
        """Send the command of this tick, once."""
        self._send(self._commander.answer_tick(self._tick_ns), self._tick_ns)

    def _play(self) -> None:
        now_ns = self._now_ns()
        held = self._commands.absent() or self._state_rivals
        command = self._commander.command(now_ns, self._present.state(), held)
        self._send(command, now_ns)
        self._timing.record(time.monotonic(), sent=command is not None)

    def _send(self, command: Any, now_ns: int) -> None:
        if command is not None:
            self._commands.send(command, now_ns)
        if self._health.has_new_violation():
            violation = f"holding: {self._commander.violation}"
            self.get_logger().error(violation, throttle_duration_sec=1.0)
            self._report()

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        rivals = self._command_rivals() if request.data else ""
        response.success = not rivals
        if rivals:
            response.message = f"not enabled: {rivals}"
        else:
            self._commander.enable(request.data)
            response.message = "enabled" if request.data else "disabled: holding"
        self._report()
        return response

    def _report(self) -> None:
        name = f"{self.get_fully_qualified_name().lstrip('/')}: commands"
        values = self._health.values(self._now_ns())
        status = diagnostics.make_status(name, *self._health.state(), values)
        self._diagnostics.publish(diagnostics.make_array(self.get_clock().now().to_msg(), status))

    def _now_ns(self) -> int:
        return self._tick_ns if self._lockstep else int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(ChunkExecutor, args)


if __name__ == "__main__":
    sys.exit(main())
