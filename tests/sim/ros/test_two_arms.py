"""The files of config/ros/aloha as they are: executor and two simulated arms in real time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import read_coordinates
from para_policy.execution.guards import Guards, Limits
from para_policy.ros.messages.conversions import chunk_to_message
from para_policy.ros.messages.input_files import load_inputs
from sim.ros.processes import RosProcesses, start_simulator
from sim.ros.simulators import ALOHA_SIM, ARM_COMMANDS, ARMS
from tests.ros.arm import shipped_parameters
from tests.ros.graph import CONFIG, Graph

pytest.importorskip("gym_aloha")

from sim.aloha.env import ACTION_NAMES, CONTROL_DT, STATE_INPUTS, Aloha
from sim.aloha.expert import Expert
from tests.sim.aloha.policy import save_aloha_checkpoint

FOLDER = CONFIG / "aloha"
FILE = ("--params-file", str(FOLDER / "policy.yaml"))
DT_NS = round(1e9 * CONTROL_DT)
EXECUTOR = shipped_parameters("chunk_executor", FOLDER)
POLICY = shipped_parameters("policy_node", FOLDER)
CHUNK = POLICY["n_action_steps"]
FROM_POLICY = ("-r", "action_chunk:=policy_node/action_chunk")


def guards() -> Guards:
    names = ("position_min", "position_max", "velocity_max", "acceleration_max", "max_jump")
    limits = Limits(**{name: tuple(EXECUTOR[name]) for name in names})
    coordinates = read_coordinates(EXECUTOR["coordinates"])
    return Guards(limits, CONTROL_DT, ACTION_NAMES, coordinates=coordinates)


def expert(seed: int, judge: Callable[[np.ndarray, np.ndarray], None]) -> np.ndarray:
    """Actions (steps, 14) of the scripted expert; each is shown with where the arms are."""
    scene = Aloha()
    scene.begin(seed)
    player = Expert(scene)
    actions = []
    while not player.done:
        actions.append(player.action(scene))
        judge(actions[-1], scene.joints())
        scene.step(actions[-1])
    return np.array(actions)


class Cell:
    """The executor and the arms as processes, what they say, and the chunks of somebody."""

    def __init__(self, graph: Graph, processes: RosProcesses, seed: int) -> None:
        self.graph, self.processes = graph, processes
        self.statuses: list[DiagnosticArray] = graph.listen(DiagnosticArray, "/diagnostics")
        self.results: list[String] = graph.listen(String, "aloha_sim/episode")
        self.states = {side: graph.listen(JointState, f"{side}/joint_states") for side in ARMS}
        self.commands = {
            side: graph.listen(JointTrajectory, topic) for side, topic in ARM_COMMANDS.items()
        }
        processes.start(
            "chunk_executor",
            "para_policy.ros.chunk_executor",
            {"auto_enable": True},
            *FILE,
            *FROM_POLICY,
        )
        start_simulator(processes, ALOHA_SIM, {"seed": seed, "episodes": 1})
        graph.wait(lambda: all(self.states.values()))
        graph.wait(lambda: self.said("chunk_executor", "no chunk yet"))

    def said(self, node: str, text: str, since: int = 0) -> bool:
        return any(
            status.name.startswith(node) and text in status.message
            for message in self.statuses[since:]
            for status in message.status
        )

    def where(self) -> np.ndarray:
        return np.concatenate([self.states[side][-1].position for side in ARMS])

    def check(self) -> None:
        """Nothing has latched, and nobody has died."""
        self.processes.check()
        for message in self.statuses:
            for status in message.status:
                assert status.level != DiagnosticStatus.ERROR, status.message


@pytest.fixture
def processes(domain_id: int) -> Iterator[RosProcesses]:
    with RosProcesses(domain_id, threads=1) as processes:
        yield processes


def test_all_files_name_the_same_joints_and_topics() -> None:
    names = list(ACTION_NAMES)
    assert POLICY["joint_names"] == EXECUTOR["joint_names"] == names
    assert EXECUTOR["command_topics"] == list(ARM_COMMANDS.values())
    assert EXECUTOR["state_topics"] == [f"{side}/joint_states" for side in ARMS]
    mapped = load_inputs(FOLDER / "inputs.yaml", STATE_INPUTS)
    parts = [mapped[f"agent_pos[{index}]"] for index in range(2)]
    assert [joint for part in parts for joint in part.joints] == names


def test_the_guide_shows_what_stands_in_them() -> None:
    guide = (CONFIG.parents[1] / "docs" / "guides" / "arm.md").read_text()
    section = guide[guide.index("## Two arms, tried in a simulator") :]
    shown = [
        line
        for block in re.findall("```yaml\n(.*?)```", section, re.S)
        for line in block.split("\n")
    ]
    files = [(FOLDER / name).read_text() for name in ("policy.yaml", "inputs.yaml")]
    known = "\n".join(files).split("\n")
    assert len(shown) > 15
    assert [line for line in shown if line not in known and "..." not in line] == []


def test_the_guards_let_the_expert_pass() -> None:
    """Whose demonstrations a policy imitates; its wrists turn as fast as any."""
    for seed in (0, 1):
        judging, sent_ns = guards(), 0

        def judge(action: np.ndarray, where: np.ndarray, judging: Guards = judging) -> None:
            nonlocal sent_ns
            sent_ns += DT_NS
            violation = judging.check(action, where, sent_ns)
            assert violation is None, str(violation)
            judging.sent(action, sent_ns)

        expert(seed, judge)


def test_arms_follow_chunks_in_real_time_and_no_guard_is_broken(
    graph: Graph, processes: RosProcesses
) -> None:
    """The way to the cube, at a fifth of its speed: the physics of a busy machine lags behind."""
    actions = expert(3, lambda action, where: None)[:75]
    cell = Cell(graph, processes, seed=3)
    chunks = graph.talk(JointTrajectory, "policy_node/action_chunk")
    start = cell.where()
    begin_ns, dt_ns = time.time_ns(), 5 * DT_NS
    for first in range(0, len(actions), 4):
        stamp_ns = begin_ns + first * dt_ns
        graph.wait(lambda stamp_ns=stamp_ns: time.time_ns() >= stamp_ns)
        chunk = ActionChunk(stamp_ns, dt_ns, actions[first : first + CHUNK])
        chunks.publish(chunk_to_message(chunk, ACTION_NAMES))
    graph.wait(lambda: cell.said("chunk_executor", "ran out"))
    cell.check()
    both = [len(commands) for commands in cell.commands.values()]
    assert both[0] == both[1] > len(actions)
    assert np.abs(cell.where() - start).max() > 0.5


def test_without_a_policy_the_arms_stand_where_they_are(
    graph: Graph, processes: RosProcesses, tmp_path: Path
) -> None:
    checkpoint = save_aloha_checkpoint(tmp_path / "policy", reach=0.003, train_timesteps=100)
    cell = Cell(graph, processes, seed=3)
    policy = {**POLICY, "checkpoint": str(checkpoint), "engine": "eager", "torch_threads": 1}
    processes.start("policy_node", "para_policy.ros.policy_node", {**policy, "autostart": True})
    graph.wait(lambda: len(cell.commands["left"]) > 20)
    assert not cell.results
    processes.kill("policy_node")
    known = len(cell.statuses)
    graph.wait(lambda: cell.said("chunk_executor", "holding: chunk ran out", known))
    graph.spin_for(0.5)
    stands, sent = cell.where(), len(cell.commands["left"])
    states = len(cell.states["left"])
    graph.wait(lambda: len(cell.states["left"]) > states + 20)
    assert len(cell.commands["left"]) == sent
    np.testing.assert_allclose(cell.where(), stands, atol=2e-3, rtol=0)
    cell.check()
