"""A trajectory controller behind an executor: what the doctor reads in its parameters, over DDS."""

from __future__ import annotations

from typing import Any

import pytest
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.doctor import graph as graph_check
from para_policy.ros.doctor.case import Case, Request
from para_policy.ros.doctor.controllers import check_controllers
from para_policy.ros.doctor.listener import Listener
from para_policy.ros.doctor.report import Finding, Level
from para_policy.ros.graph import full_name
from para_policy.ros.parameters.policy import PARAMETERS
from tests.ros.arm import COMMAND_TOPIC, JOINTS, shipped_parameters
from tests.ros.doctor.test_graph import spinning
from tests.ros.graph import Graph

CONTROLLER = "joint_trajectory_controller"
DEFAULTS: dict[str, Any] = {
    "joints": JOINTS,
    "allow_partial_joints_goal": False,
    "open_loop_control": False,
    "interpolate_from_desired_state": False,
    "interpolation_method": "splines",
    "cmd_timeout": 0.0,
    "speed_scaling.state_interface": "",
    "constraints.goal_time": 0.0,
    **{f"constraints.{joint}.trajectory": 0.0 for joint in JOINTS},
    **{f"constraints.{joint}.goal": 0.0 for joint in JOINTS},
}
"""Of ros2_controllers 4.42, as far as they matter."""


@pytest.fixture(autouse=True)
def _domain(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain_id))


def start(graph: Graph, namespace: str, controller: dict[str, Any], **executor: Any) -> None:
    """The shipped executor before a controller with these parameters; in a namespace for each test."""

    def make_controller(**options: Any) -> Node:
        node = Node(CONTROLLER, namespace=namespace, **options)
        for name, value in ({**DEFAULTS, **controller} if controller else {}).items():
            node.declare_parameter(name, value)
        node.create_subscription(JointTrajectory, COMMAND_TOPIC, lambda _: None, 10)
        return node

    remap = ["--ros-args", "-r", f"~/command:={COMMAND_TOPIC}"]
    graph.add(make_controller)
    values = {**shipped_parameters("chunk_executor"), **executor}
    graph.add(lambda **o: ChunkExecutor(namespace=namespace, cli_args=remap, **o), **values)
    topic = f"/{namespace}/{COMMAND_TOPIC}"
    graph.wait(lambda: graph.probe.count_publishers(topic))
    graph.wait(lambda: graph.probe.count_subscribers(topic))


def look(graph: Graph, namespace: str) -> list[Finding]:
    topic, executor = f"/{namespace}/{COMMAND_TOPIC}", f"/{namespace}/chunk_executor"
    with spinning(graph), Listener() as listener:
        node = listener.node

        def is_known() -> bool:
            """With the names of the nodes, which come after the topics."""
            ends = node.get_subscriptions_info_by_topic(topic)
            ends += node.get_publishers_info_by_topic(topic)
            nodes = {f"{space}/{name}" for name, space in node.get_node_names_and_namespaces()}
            names = {executor, f"/{namespace}/{CONTROLLER}"}
            return {full_name(end) for end in ends} == names and names <= nodes

        assert listener.wait(is_known, 20.0)
        return list(check_controllers(listener, executor))


GOOD = {"interpolate_from_desired_state": True}
FAULTS = {
    "defaults": ({"cmd_timeout": 0.0}, Level.FAIL, "begins each message at the measured state"),
    "tolerance": (
        {**GOOD, "constraints.elbow_joint.trajectory": 0.2},
        Level.FAIL,
        "cancels where elbow_joint is 0.2 off (constraints.elbow_joint.trajectory), max_jump is 0.3",
    ),
    "points": ({**GOOD, "interpolation_method": "none"}, Level.FAIL, "interpolation_method 'none'"),
    "others": (
        {**GOOD, "joints": [*JOINTS[:5], "tool0"]},
        Level.FAIL,
        "has no joint wrist_3_joint",
    ),
    "more": ({**GOOD, "joints": [*JOINTS, "gripper"]}, Level.FAIL, "has 7 joints, a message 6"),
    "partial": (
        {**GOOD, "joints": [*JOINTS, "gripper"], "allow_partial_joints_goal": True},
        Level.WARN,
        "freezes gripper where each message finds them",
    ),
    "scaled": (
        {**GOOD, "speed_scaling.state_interface": "speed_scaling/speed_scaling_factor"},
        Level.WARN,
        "a stream is not slower for it",
    ),
    "goal": (
        {**GOOD, "constraints.goal_time": 0.5, "constraints.wrist_1_joint.goal": 0.01},
        Level.WARN,
        "gives up its set-point 0.5 s after the last message where wrist_1_joint rest off",
    ),
    "timeout": (
        {**GOOD, "constraints.goal_time": 0.5, "cmd_timeout": 0.2},
        Level.WARN,
        "ignores its cmd_timeout 0.2 s",
    ),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_controller_that_does_not_fit(graph: Graph, name: str) -> None:
    parameters, level, words = FAULTS[name]
    start(graph, name, parameters)
    (finding,) = look(graph, name)
    assert (finding.level, words in finding.found) == (level, True), finding
    assert f"/{name}/{CONTROLLER}" in finding.found
    assert finding.advice


@pytest.mark.parametrize(
    "parameters",
    [
        GOOD,
        {"open_loop_control": True},
        {**GOOD, **{f"constraints.{joint}.trajectory": 0.31 for joint in JOINTS}},
        {**GOOD, "constraints.goal_time": 0.5, "cmd_timeout": 0.6},
    ],
    ids=["new", "humble", "looser_than_max_jump", "timeouts"],
)
def test_a_controller_that_fits(graph: Graph, parameters: dict[str, Any], request: Any) -> None:
    namespace = "fits_" + request.node.callspec.id
    start(graph, namespace, parameters)
    (finding,) = look(graph, namespace)
    assert finding.level == Level.OK, finding
    assert "takes 6 joints" in finding.found


def test_one_of_several_controllers_is_compared_with_its_own_slice(graph: Graph) -> None:
    tolerances = {f"constraints.{joint}.trajectory": 0.31 for joint in JOINTS}
    start(
        graph,
        "slice",
        {**GOOD, **tolerances},
        output="float64_multi_array",
        joint_names=["finger", *JOINTS],
        state_joints=["finger", *JOINTS],
        position_min=[-4.0],
        position_max=[4.0],
        max_jump=[0.9, *[0.3] * 6],
        velocity_max=[1.5],
        command_topics=["fingers", COMMAND_TOPIC],
        command_outputs=["float64_multi_array", "joint_trajectory"],
        command_sizes=[1, 6],
    )
    (finding,) = look(graph, "slice")
    assert finding.level == Level.OK, finding


def test_a_tolerance_without_max_jump(graph: Graph) -> None:
    tolerances = {f"constraints.{joint}.trajectory": 0.1 for joint in JOINTS[:2]}
    start(graph, "unguarded", {**GOOD, **tolerances}, max_jump=[float("inf")])
    findings = look(graph, "unguarded")
    assert [finding.level for finding in findings] == [Level.FAIL] * 2
    assert all("max_jump is not set" in finding.found for finding in findings)


def test_whoever_has_no_such_parameters_is_not_judged(graph: Graph) -> None:
    start(graph, "simulated", {})
    (finding,) = look(graph, "simulated")
    assert finding.level == Level.SKIPPED
    assert f"from /simulated/{CONTROLLER}" in finding.found


def test_the_check_is_part_of_the_running_graph(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_check, "_DISCOVERY_S", 1.0)  # policy_node does not run
    start(graph, "whole", {**GOOD, "constraints.elbow_joint.trajectory": 0.2})
    with spinning(graph):
        defaults = {parameter.name: parameter.default for parameter in PARAMETERS}
        case = Case(Request(namespace="whole", seconds=2.0), defaults)
        findings = {finding.subject: finding for finding in graph_check.check(case)}
    assert findings["commands"].level == Level.OK
    assert findings["controller"].level == Level.FAIL
