"""Client of a closed-loop run: asks for episodes and listens to the nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError, ParaPolicyError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import message_to_chunk
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.messages.types import message_class
from para_policy.ros.own_node import OwnNode, Question
from sim.ros.simulators import PUSHT_SIM, Simulator

START_LIMIT_S = 120.0
STALL_LIMIT_S = 60.0


@dataclass
class Played:
    """What was heard of one episode; chunks and their infos by stamp."""

    chunks: dict[int, ActionChunk] = field(default_factory=dict)
    infos: dict[int, dict[str, str]] = field(default_factory=dict)
    commands: int = 0
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """Where the simulator has kept the episode. Raises InputError where it could not."""
        if "not_recorded" in self.result:
            raise InputError(self.result["not_recorded"])
        return Path(self.result["record"])

    def complete(self) -> bool:
        """Whether the result and all messages before it have arrived; topics may overtake."""
        if not self.result or not self.chunks:
            return False
        steps_per_chunk = len(next(iter(self.chunks.values())).actions)
        expected = -(-self.result["steps"] // steps_per_chunk)
        return len(self.chunks) == len(self.infos) == expected


class WaitingNode(OwnNode):
    """A node that waits for what other nodes do, and for no dead one; a context manager.

    Args:
        check: called while waiting; raises when a node has died.
    """

    def __init__(
        self, name: str, domain_id: int, check: Callable[[], None], **options: Any
    ) -> None:
        self._check = check
        self._problem = "nothing was reported"
        super().__init__(name, domain_id, **options)

    def wait(
        self,
        condition: Callable[[], Any],
        limit_s: float = START_LIMIT_S,
        awaited: str = "an answer of the nodes",
    ) -> None:
        """Let messages in until `condition` holds, which is that `awaited` is here.

        Raises:
            ParaPolicyError: when a node has died, or after `limit_s`.
        """
        end = time.monotonic() + limit_s
        while not condition():
            self.spin_once()
            self._check()
            if time.monotonic() > end:
                raise ParaPolicyError(
                    f"no sign of {awaited} within {limit_s:.0f} s; {self._problem}"
                )


class LoopClient(WaitingNode):
    """Plays episodes with the running nodes; a context manager."""

    new_record: type[Played] = Played

    def __init__(
        self, domain_id: int, check: Callable[[], None], simulator: Simulator = PUSHT_SIM
    ) -> None:
        self._played = self.new_record()
        self._simulator = simulator.name
        super().__init__("closed_loop", domain_id, check, enable_rosout=False)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        # Subscriptions before clients: endpoints are announced in order, so a node that has
        # answered a request is connected to all of these, too.
        for kind, topic, callback, qos in (
            (JointTrajectory, "policy_node/action_chunk", self._on_chunk, 10),
            (DiagnosticStatus, "policy_node/chunk_info", self._on_info, 10),
            (message_class(simulator.command_type), simulator.command_topic, self._on_command, 10),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
            (String, f"{simulator.name}/episode", self._on_result, latched),
        ):
            self.node.create_subscription(kind, topic, callback, qos)
        self._resets = {
            name: self.node.create_client(Trigger, f"{name}/reset")
            for name in ("policy_node", simulator.name)
        }
        self._setters = {
            name: self.node.create_client(SetParameters, f"{name}/set_parameters")
            for name in self._resets
        }

    def wait_until_ready(self) -> None:
        """Wait until all nodes answer.

        Raises:
            ParaPolicyError: when one dies, reports an error or takes longer than START_LIMIT_S.
        """
        clients = [*self._resets.values(), *self._setters.values()]
        self.wait(
            lambda: all(client.service_is_ready() for client in clients), awaited="all services"
        )

    def play(self, seed: int, on_progress: Callable[[int], None] | None = None) -> Played:
        """Play one episode: start state and noise from `seed`.

        Raises:
            ParaPolicyError: when a node dies, reports an error, or nothing moves any more.
        """
        # The policy first: it must be ready for the first observation of the new episode.
        for name in ("policy_node", self._simulator):
            value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
            request = SetParameters.Request(parameters=[Parameter(name="seed", value=value)])
            (outcome,) = self._ask(self._setters[name], request).results
            if not outcome.successful:
                raise ParaPolicyError(f"{name} refuses seed {seed}: {outcome.reason}")
            if name == self._simulator:
                self._played = self.new_record()
            # Not sent again, which would begin the episode anew; nor need it be: the node has
            # answered the setter, which was announced after the client of its reset.
            self._ask(self._resets[name], Trigger.Request(), again_s=STALL_LIMIT_S)
        commands = -1
        while not self._played.complete():
            commands = self._played.commands
            self.wait(self._moved_beyond(commands), STALL_LIMIT_S, "the next command")
            if on_progress is not None:
                on_progress(self._played.commands)
        return self._played

    def _moved_beyond(self, commands: int) -> Callable[[], bool]:
        return lambda: self._played.complete() or self._played.commands > commands

    def _ask(self, client: Any, request: Any, **options: float) -> Any:
        question = Question(client, request, **options)
        self.wait(question.answered, STALL_LIMIT_S, f"an answer from {client.srv_name}")
        return question.answer()

    def _on_chunk(self, message: JointTrajectory) -> None:
        chunk = message_to_chunk(message, receive_ns=0)
        self._played.chunks[chunk.stamp_ns] = chunk

    def _on_info(self, status: DiagnosticStatus) -> None:
        values = status_values(status)
        self._played.infos[int(values["stamp_ns"])] = values

    def _on_command(self, _: Any) -> None:
        self._played.commands += 1

    def _on_result(self, message: String) -> None:
        self._played.result = json.loads(message.data)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level == DiagnosticStatus.ERROR:
                raise ParaPolicyError(status.message)
            if status.level == DiagnosticStatus.WARN:
                self._problem = f"{status.name}: {status.message}"
