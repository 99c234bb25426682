"""Simulator, policy node and executor as processes that can be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import SetBool

from para_policy.ros.own_node import Question
from sim.ros.processes import RosProcesses
from tests.ros.faults.judge import Judge
from tests.ros.faults.loop import EXECUTOR, EXECUTOR_HZ, POLICY
from tests.ros.graph import Graph

POLICY_NODE, EXECUTOR_NODE, SIMULATOR = "policy_node", "chunk_executor", "pusht_sim"


class System:
    """The executor starts disabled and repeats its last command while it holds."""

    def __init__(self, graph: Graph, processes: RosProcesses, checkpoint: Path) -> None:
        self.graph = graph
        self.processes = processes
        self._parameters: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
            POLICY_NODE: (
                "para_policy.ros.policy_node",
                {**POLICY, "checkpoint": str(checkpoint), "autostart": True}
                | {"control_rate_hz": 10.0, "max_observation_age_s": 0.5}
                | {"rival_inputs": "warn"},  # a test floods the simulator's topics
                (),
            ),
            EXECUTOR_NODE: (
                "para_policy.ros.chunk_executor",
                {**EXECUTOR, "auto_enable": False, "hold": "repeat"},
                ("-r", "action_chunk:=policy_node/action_chunk"),
            ),
            SIMULATOR: ("sim.ros.pusht_sim", {}, ()),
        }
        self.judge = Judge(graph, repeats=True)
        self.diagnostics: list[DiagnosticArray] = graph.listen(DiagnosticArray, "/diagnostics")

    def parameters_of(self, name: str) -> dict[str, Any]:
        return self._parameters[name][1]

    def start(self, name: str) -> None:
        module, parameters, arguments = self._parameters[name]
        self.processes.start(name, module, parameters, *arguments)

    def kill(self, name: str) -> None:
        self.processes.kill(name)

    def said(self, text: str, since: int = 0) -> bool:
        return any(
            text in status.message for array in self.diagnostics[since:] for status in array.status
        )

    def wait_for_status(self, text: str) -> None:
        """A status that comes from now on."""
        known = len(self.diagnostics)
        self.graph.wait(lambda: self.said(text, since=known))

    def wait_for_motion(self) -> None:
        """Two chunks more, and several different commands."""
        known_chunks, known = len(self.judge.chunks), len(self.judge.commands)
        self.graph.wait(lambda: len(self.judge.chunks) > known_chunks + 1)
        self.graph.wait(lambda: len(self.positions(known)) > 4)

    def positions(self, since: int) -> set[tuple[float, ...]]:
        commands = self.judge.commands[since:]
        return {(c.pose.position.x, c.pose.position.y, c.pose.position.z) for c in commands}

    def wait_for_hold(self) -> None:
        """The last command again and again."""
        self.graph.wait(self._repeats)

    def _repeats(self) -> bool:
        known = len(self.judge.commands)
        self.graph.spin_for(20 / EXECUTOR_HZ)
        return len(self.judge.commands) > known and len(self.positions(known)) == 1

    def is_quiet(self) -> bool:
        known = len(self.judge.commands)
        self.graph.spin_for(10 / EXECUTOR_HZ)
        return len(self.judge.commands) == known

    def enable(self) -> None:
        """Asks until it is answered: a killed executor stays in the graph for a while."""
        client = self.graph.probe.create_client(SetBool, "chunk_executor/enable")
        question = Question(client, SetBool.Request(data=True), again_s=0.5)
        self.graph.wait(question.answered)
