"""Somebody else on the topic of the commands: the robot holds until a person has put that right."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.doctor.connections import check_commands
from para_policy.ros.doctor.report import Level
from para_policy.ros.messages.conversions import chunk_to_message
from para_policy.ros.playing import rivals
from tests.ros.graph import Graph

ROBOT = "/robot/commands"


def executor(graph: Graph, name: str = "chunk_executor", **parameters: Any) -> ChunkExecutor:
    arguments = ["--ros-args", "-r", f"~/command:={ROBOT}", "-r", f"__node:={name}"]
    return graph.add(lambda **options: ChunkExecutor(cli_args=arguments, **options), **parameters)


class Cell:
    """An enabled executor that moves, and what it says."""

    def __init__(self, graph: Graph, **parameters: Any) -> None:
        self.graph = graph
        self.node = executor(graph, auto_enable=True, **parameters)
        self.commands = graph.listen(Float64MultiArray, ROBOT)
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        self.chunks = graph.talk(JointTrajectory, "action_chunk")
        self.move()

    def move(self) -> None:
        known = len(self.commands)
        chunk = ActionChunk(time.time_ns(), 100_000_000, np.ones((100, 1)))
        self.chunks.publish(chunk_to_message(chunk, ["joint"]))
        self.graph.wait(lambda: len(self.commands) > known + 3)

    def status(self, name: str = "chunk_executor") -> DiagnosticStatus:
        known = [s for m in self.diagnostics for s in m.status if s.name == f"{name}: commands"]
        return known[-1] if known else DiagnosticStatus()

    def wait_for(self, text: str, name: str = "chunk_executor") -> None:
        self.graph.wait(lambda: text in self.status(name).message)
        assert self.status(name).level == DiagnosticStatus.ERROR

    def enable(self, name: str = "chunk_executor") -> SetBool.Response:
        return self.graph.call(SetBool, f"{name}/enable", SetBool.Request(data=True))

    def stands(self) -> bool:
        known = len(self.commands)
        self.graph.spin_for(0.3)
        return len(self.commands) == known


@pytest.fixture
def cell(graph: Graph) -> Cell:
    return Cell(graph)


def test_a_rival_that_is_disabled_holds_both_until_it_is_gone(cell: Cell, others: Graph) -> None:
    rival = executor(others, "other_executor")
    others.listen(Float64MultiArray, ROBOT)
    cell.wait_for("/other_executor may send commands on /robot/commands, too")
    assert cell.stands()
    # Nobody can be enabled; the disabled one names its rival, too.
    answer = cell.enable()
    assert not answer.success
    assert "/other_executor" in answer.message
    others.wait(lambda: rival._commands.rivals())
    others.spin_for(0.3)
    cell.wait_for("/chunk_executor may send", "other_executor")
    finding, *_ = check_commands(cell.graph.probe, "/chunk_executor")
    assert finding.level == Level.FAIL
    assert "/chunk_executor, /other_executor" in finding.found
    others.close()
    cell.graph.wait(lambda: "holding since /other_executor" in cell.status().message)
    cell.chunks.publish(
        chunk_to_message(ActionChunk(time.time_ns(), 10**8, np.ones((9, 1))), ["a"])
    )
    assert cell.stands()  # gone, but nobody has looked
    assert cell.enable().success
    cell.move()


@pytest.mark.parametrize("hold", ["silent", "repeat"])
def test_any_node_that_commands_the_robot_is_a_rival(
    graph: Graph, others: Graph, hold: str
) -> None:
    cell = Cell(graph, hold=hold)
    others.add(lambda **options: Node("teleop", **options)).create_publisher(
        Float64MultiArray, ROBOT, 10
    )
    cell.wait_for("/teleop may send commands")
    assert cell.stands()


def test_a_publisher_of_the_same_name_is_a_rival_when_it_sends(cell: Cell, others: Graph) -> None:
    twin = others.add(lambda **options: Node("chunk_executor", **options))
    commands = twin.create_publisher(Float64MultiArray, ROBOT, 10)
    cell.graph.wait(lambda: cell.graph.probe.count_publishers(ROBOT) == 2)
    cell.graph.spin_for(1.0)
    cell.move()  # it might be one that was killed
    cell.graph.probe.create_timer(0.05, lambda: commands.publish(Float64MultiArray(data=[0.0])))
    cell.wait_for("another /chunk_executor may send commands")


def test_a_silent_one_of_the_same_name_is_a_rival_when_it_stays(
    cell: Cell, others: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "_LEASE_S", 2.0)
    executor(others)  # a second launch, disabled
    cell.graph.wait(lambda: cell.graph.probe.count_publishers(ROBOT) == 2)
    cell.wait_for("another /chunk_executor may send commands")
    assert cell.stands()
