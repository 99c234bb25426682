"""The nodes of a running graph, as the doctor sees them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from rclpy.node import Node

from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.doctor import graph as graph_check
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.report import Finding, Level
from para_policy.ros.parameters.policy import PARAMETERS
from para_policy.ros.policy_node import PolicyNode
from sim.ros.pusht_sim import PushTSim
from tests.ros.graph import CONFIG, Graph

INPUTS = CONFIG / "pusht_inputs.yaml"


@pytest.fixture(autouse=True)
def _domain(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))


@contextmanager
def spinning(graph: Graph) -> Iterator[None]:
    """The nodes live while the doctor looks at them."""
    done = threading.Event()

    def spin() -> None:
        while not done.is_set():
            graph.executor.spin_once(timeout_sec=0.02)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def look(graph: Graph, **request: Any) -> dict[str, Finding]:
    defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
    with spinning(graph):
        findings = list(graph_check.check(Case(Request(**request), defaults)))
    return {finding.subject: finding for finding in findings}


def start_nodes(graph: Graph, namespace: str, **policy: Any) -> None:
    """Each test has its own namespace: what rclpy keeps of earlier nodes stays visible for a while."""
    remap = ["--ros-args", "-r", "action_chunk:=policy_node/action_chunk"]
    values = {"inputs_file": str(INPUTS), "autostart": True, "control_rate_hz": 10.0}
    values["engine"] = "eager"
    graph.add(lambda **o: PolicyNode(namespace=namespace, **o), **{**values, **policy})
    graph.add(lambda **o: ChunkExecutor(namespace=namespace, cli_args=remap, **o), auto_enable=True)


def test_healthy_graph(graph: Graph, checkpoint: Path) -> None:
    start_nodes(graph, "healthy", checkpoint=str(checkpoint))
    remap = ["--ros-args", "-r", "command:=chunk_executor/command"]
    graph.add(lambda **options: PushTSim(namespace="healthy", cli_args=remap, **options))
    for _ in range(3):  # on a busy machine a chunk may come late once
        findings = look(graph, namespace="healthy")
        if all(finding.level == Level.OK for finding in findings.values()):
            break
    assert {f.subject: f for f in findings.values() if f.level != Level.OK} == {}
    assert {"policy_node", "agent_pos", "environment_state", "chunks", "commands"} <= set(findings)
    assert findings["/healthy/policy_node says"].found == "active"
    assert findings["/healthy/chunk_executor says"].found == "playing"


def test_remapped_topics_of_one_type_are_told_apart(graph: Graph, checkpoint: Path) -> None:
    """Two inputs of joint states, of which one is remapped: the node says which."""
    mapping = {"type": "sensor_msgs/msg/JointState", "joints": ["agent_x", "agent_y"]}
    joints = [f"joint_{index}" for index in range(16)]
    file = checkpoint.parent / "two_arms.yaml"
    inputs = {
        "agent_pos": {"topic": "arm/joint_states", **mapping},
        "environment_state": {"topic": "hand/joint_states", **mapping, "joints": joints},
    }
    file.write_text(yaml.safe_dump({"inputs": inputs}))
    remap = ["--ros-args", "-r", "arm/joint_states:=/driver/joints"]
    values = {"inputs_file": str(file), "autostart": True, "control_rate_hz": 10.0}
    graph.add(
        lambda **options: PolicyNode(namespace="two", cli_args=remap, **options),
        checkpoint=str(checkpoint),
        engine="eager",
        **values,
    )
    findings = look(graph, namespace="two", seconds=2.0)
    assert findings["agent_pos"].found == "nobody publishes /driver/joints"
    assert findings["environment_state"].found == "nobody publishes /two/hand/joint_states"


def test_robot_that_is_not_there(graph: Graph, checkpoint: Path) -> None:
    """The inputs are those that the running node says it needs."""
    start_nodes(graph, "lonely", checkpoint=str(checkpoint))
    findings = look(graph, namespace="lonely", seconds=2.0)
    assert {subject: finding.level for subject, finding in findings.items()} == {
        "policy_node": Level.OK,
        "agent_pos": Level.FAIL,
        "environment_state": Level.FAIL,
        "chunks": Level.OK,
        "commands": Level.FAIL,
        "/lonely/policy_node says": Level.WARN,
        "/lonely/chunk_executor says": Level.WARN,
    }


def test_policy_that_could_not_be_configured(graph: Graph) -> None:
    start_nodes(graph, "broken", checkpoint="/nowhere")
    findings = look(graph, namespace="broken", seconds=2.0)
    assert (findings["policy_node"].level, findings["inputs"].level) == (Level.WARN, Level.SKIPPED)
    assert "ros2 lifecycle set /broken/policy_node configure" in findings["policy_node"].advice
    said = findings["/broken/policy_node says"]
    assert said.level == Level.FAIL
    assert "no checkpoint at '/nowhere'" in said.found


def test_an_offset_of_which_the_executor_does_not_know(graph: Graph) -> None:
    start_nodes(graph, "shifted", checkpoint="/nowhere", latency_offset_s=-0.04)
    found = look(graph, namespace="shifted", seconds=2.0)["latency offset"]
    assert found.level == Level.WARN
    assert found.found.startswith(
        "latency_offset_s is -0.04 of policy_node and 0 of chunk_executor"
    )


def test_simulated_time_that_stands_still(graph: Graph, checkpoint: Path) -> None:
    start_nodes(graph, "frozen", checkpoint=str(checkpoint), use_sim_time=True)
    findings = look(graph, namespace="frozen", seconds=2.0)
    assert "nobody publishes /clock" in findings["clock"].found


def test_two_nodes_of_one_name(graph: Graph) -> None:
    for _ in range(2):
        graph.add(lambda **options: ChunkExecutor(namespace="twins", **options))
    found = look(graph, namespace="twins", seconds=2.0)["nodes"]
    assert found.level == Level.FAIL
    assert "2 nodes are called /twins/chunk_executor" in found.found


def test_nothing_runs_here(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "_DISCOVERY_S", 0.5)
    (finding,) = look(graph, namespace="empty", seconds=2.0).values()
    assert finding.level == Level.SKIPPED
    graph.add(lambda **options: Node("policy_node", namespace="left", **options))
    (finding,) = look(graph, namespace="empty", seconds=2.0).values()
    assert finding.level == Level.SKIPPED
    assert "/left/policy_node" in finding.found
    assert finding.advice.startswith("give --namespace /")
