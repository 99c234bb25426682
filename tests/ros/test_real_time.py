"""The three nodes in real time, connected as the launch file connects them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from sim.ros.processes import RosProcesses
from tests.ros.graph import CONFIG, Graph


@pytest.fixture
def processes(domain_id: int):
    with RosProcesses(domain_id, threads=1) as processes:
        yield processes


def test_the_policy_moves_the_simulator_in_real_time(
    graph: Graph, processes: RosProcesses, checkpoint: Path
) -> None:
    states = graph.listen(JointState, "joint_states")
    chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
    commands = graph.listen(Float64MultiArray, "chunk_executor/command")
    policy = {
        "checkpoint": str(checkpoint),
        "inputs_file": str(CONFIG / "pusht_inputs.yaml"),
        "torch_threads": 1,
        "engine": "eager",
        "autostart": True,
    }
    remap = ("-r", "action_chunk:=policy_node/action_chunk")
    processes.start("policy_node", "para_policy.ros.policy_node", policy)
    executor = {"auto_enable": True, "command_rate_hz": 20.0}
    processes.start("chunk_executor", "para_policy.ros.chunk_executor", executor, *remap)
    simulator = {"seed": 100_000}
    processes.start(
        "pusht_sim", "sim.ros.pusht_sim", simulator, "-r", "command:=chunk_executor/command"
    )
    # Counted, not timed: discovery and a busy machine take the time that they take.
    graph.wait(lambda: len(chunks) >= 5 and len(commands) >= 20 and len(states) >= 20)
    assert states[0].position != states[-1].position
    stamps = [chunk.header.stamp.sec + 1e-9 * chunk.header.stamp.nanosec for chunk in chunks]
    assert stamps == sorted(set(stamps))
    processes.check()
    assert set(processes.stop().values()) == {0}
