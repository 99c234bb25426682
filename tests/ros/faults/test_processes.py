"""Processes that are killed, and processes that are asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from para_policy.ros.messages.diagnostics import status_values
from sim.ros.processes import RosProcesses
from tests.ros.faults.system import EXECUTOR_NODE, POLICY_NODE, SIMULATOR, System
from tests.ros.graph import Graph

SLOW_NODE = "slow_policy_node"
LIMIT_S = 60.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system(domain_id: int, poses_checkpoint: Path) -> Iterator[System]:
    """A robot that moves; after all tests every process ends by Ctrl-C with code 0."""
    graph = Graph(domain_id)
    with RosProcesses(domain_id, threads=1) as processes:
        system = System(graph, processes, poses_checkpoint)
        for name in (POLICY_NODE, EXECUTOR_NODE, SIMULATOR):
            system.start(name)
        system.wait_for_status("disabled: call ~/enable")
        system.judge.wait_until_it_hears()
        system.enable()
        yield system
        assert set(processes.stop().values()) == {0}
    graph.close()


@pytest.fixture
def moving(system: System) -> Iterator[System]:
    system.wait_for_motion()
    yield system
    system.judge.check()


def test_killed_simulator_holds_the_robot_until_it_is_back(moving: System) -> None:
    moving.kill(SIMULATOR)
    moving.wait_for_status("s old, the limit is 0.500 s")
    moving.wait_for_hold()
    moving.start(SIMULATOR)
    moving.wait_for_motion()


def test_killed_policy_holds_the_robot_until_it_is_back(moving: System) -> None:
    known = len(moving.diagnostics)
    moving.kill(POLICY_NODE)
    moving.wait_for_hold()
    moving.judge.check()
    moving.start(POLICY_NODE)
    moving.judge.wait_until_it_hears()
    moving.wait_for_motion()
    # Its ghost stays in the graph for twenty seconds and must not count as a second policy.
    executor = [
        status
        for array in moving.diagnostics[known:]
        for status in array.status
        if status.name.startswith("chunk_executor")
    ]
    assert not [status.message for status in executor if "publishers" in status.message]


def test_killed_executor_comes_back_disabled_and_plays_no_old_chunk(moving: System) -> None:
    moving.kill(EXECUTOR_NODE)
    moving.graph.wait(moving.is_quiet)
    moving.judge.forget_last()
    moving.start(EXECUTOR_NODE)
    moving.wait_for_status("disabled: call ~/enable")
    assert moving.is_quiet()
    moving.enable()
    moving.wait_for_motion()


FLOOD = """
import rclpy
from geometry_msgs.msg import Pose, PoseArray
from sensor_msgs.msg import JointState
rclpy.init()
node = rclpy.create_node("flood")
joints = node.create_publisher(JointState, "joint_states", 10)
keypoints = node.create_publisher(PoseArray, "keypoints", 10)
state = JointState(name=["agent_x", "agent_y"], position=[256.0, 256.0])
poses = PoseArray(poses=[Pose() for _ in range(8)])
def publish():
    poses.header.stamp = state.header.stamp = node.get_clock().now().to_msg()
    joints.publish(state)
    keypoints.publish(poses)
node.create_timer(0.001, publish)
rclpy.spin(node)
"""


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_flood_of_observations_is_looked_at_and_not_queued(
    moving: System, domain_id: int
) -> None:
    pid = moving.processes.pid(POLICY_NODE)
    infos = moving.graph.listen(DiagnosticStatus, "policy_node/chunk_info")
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain_id)}
    flood = subprocess.Popen([sys.executable, "-c", FLOOD], env=environment)
    moving.graph.wait(lambda: moving.graph.probe.count_publishers("joint_states") > 1)
    moving.graph.spin_for(0.5)
    del infos[:]
    before = resident_mib(pid)
    moving.graph.wait(lambda: len(infos) >= 8)
    ages = sorted(float(status_values(info)["observation_age_ms"]) for info in infos)
    assert ages[4] < 1000  # a queue of all would be seconds behind by now
    assert resident_mib(pid) - before < 20
    flood.kill()
    flood.wait()
    moving.wait_for_motion()


def is_over(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("thread", ["inference", "MainThread"])
def test_ctrl_c_ends_a_policy_that_is_computing(
    system: System, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    processes = system.processes
    monkeypatch.setitem(processes._env, "SLOW_THREAD", thread)
    parameters = system.parameters_of(POLICY_NODE)
    other_name = ("-r", "__node:=slow")  # so that the robot does not listen to it
    processes.start(SLOW_NODE, "tests.ros.faults.slow_policy_node", parameters, *other_name)
    system.graph.wait(lambda: "computing" in processes.last_words(SLOW_NODE), LIMIT_S)
    slow = processes._running[SLOW_NODE]
    began = time.monotonic()
    slow.send_signal(signal.SIGINT)
    assert slow.wait(LIMIT_S) == 0, processes.last_words(SLOW_NODE)
    took_s = time.monotonic() - began
    assert took_s < 4  # two seconds, and as much again for a machine that does other things
    assert is_over(slow.pid)
