"""One policy node that serves several robots, its settings, its markers and real-time chunking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Pose, PoseArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from para_policy.planning.seeding import chunk_seed
from para_policy.ros.graph import LATCHED
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.policy_node import PolicyNode
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import DT_NS, ROBOTS, T0, Pair, Rig


def test_each_robot_gets_its_own_chunk(graph: Graph, checkpoint: Any) -> None:
    pair = Pair(graph, checkpoint)
    # The same policy, alone, on topics without a name before them.
    single = Rig(graph, checkpoint=str(checkpoint)).start()
    for robot, x in zip(ROBOTS, (100.0, 300.0), strict=True):
        pair.observe(robot, T0, x)
        graph.wait(lambda robot=robot: len(pair.infos[robot]) == 1)
        single.observe(T0 + (x == 300.0) * 8 * DT_NS, [x, 200.0])
        graph.wait(lambda x=x: len(single.chunks) == 1 + (x == 300.0))
    first = np.array([list(point.positions) for point in single.chunks[0].points])
    np.testing.assert_allclose(pair.actions("left"), first, atol=1e-4)
    assert np.abs(pair.actions("left") - pair.actions("right")).max() > 1
    values = status_values(pair.infos["right"][0])
    assert (values["seed"], values["chunk"]) == (str(chunk_seed(7, 0)), "0")


def test_health_and_reset_are_each_robots_own(graph: Graph, checkpoint: Any) -> None:
    pair = Pair(graph, checkpoint)
    for robot in ROBOTS:
        pair.observe(robot, T0, 100.0)
    graph.wait(lambda: all(pair.infos.values()))
    pair.observe("left", T0 + 8 * DT_NS, float("nan"))
    graph.wait(lambda: levels(pair).get("policy_node: policy left") == DiagnosticStatus.WARN)
    graph.wait(lambda: levels(pair)["policy_node: policy right"] == DiagnosticStatus.OK)
    pair.observe("right", T0 + 8 * DT_NS, 100.0)
    graph.wait(lambda: len(pair.infos["right"]) == 2)
    assert graph.call(Trigger, "right/policy_node/reset", Trigger.Request()).success
    pair.observe("right", T0 + 30 * DT_NS, 100.0)
    graph.wait(lambda: len(pair.infos["right"]) == 3)
    assert status_values(pair.infos["right"][-1])["chunk"] == "0"
    assert len(pair.chunks["left"]) == 1


def test_stamps_of_one_robot_that_drift_apart_hold_it_alone(graph: Graph, checkpoint: Any) -> None:
    pair = Pair(graph, checkpoint)
    for step in range(15):  # its joints are from before all that is kept of its keypoints
        keypoints = PoseArray(poses=[Pose() for _ in range(8)])
        keypoints.header.stamp = ns_to_stamp(T0 + step * DT_NS)
        pair.keypoints["right"].publish(keypoints)
    planner = pair.parts.robots["right"].planner
    newest_ns = T0 + 14 * DT_NS
    graph.wait(lambda: planner.observation_ages_s(newest_ns).get("environment_state") == 0)
    joints = JointState(name=["agent_x", "agent_y"], position=[100.0, 200.0])
    joints.header.stamp = ns_to_stamp(T0)
    pair.joints["right"].publish(joints)
    told = "environment_state is stamped 1.400 s after agent_pos, and samples are kept for 0.7 s"
    graph.wait(lambda: told in messages(pair).get("policy_node: policy right", ""))
    pair.observe("left", T0, 100.0)
    graph.wait(lambda: pair.chunks["left"])
    graph.wait(lambda: messages(pair)["policy_node: policy left"] == "active")
    assert not pair.chunks["right"]
    pair.observe("right", T0 + 15 * DT_NS, 100.0)
    graph.wait(lambda: pair.chunks["right"])


def messages(pair: Pair) -> dict[str, str]:
    return {s.name: s.message for message in pair.diagnostics for s in message.status}


def levels(pair: Pair) -> dict[str, bytes]:
    return {s.name: s.level for message in pair.diagnostics for s in message.status}


@pytest.mark.parametrize("names", [["a b"], ["a", "a"], ["1a"], ["a/b"]])
def test_names_that_cannot_be_topics_are_refused(
    graph: Graph, checkpoint: Any, names: list[str]
) -> None:
    node = graph.add(
        PolicyNode,
        checkpoint=str(checkpoint),
        inputs_file=str(CONFIG / "pusht_inputs.yaml"),
        engine="eager",
        robots=names,
    )
    assert node.trigger_configure() != TransitionCallbackReturn.SUCCESS


def test_a_topic_that_a_robots_name_cannot_stand_before_is_refused(
    graph: Graph, checkpoint: Any, tmp_path: Path
) -> None:
    file = tmp_path / "inputs.yaml"
    file.write_text((CONFIG / "pusht_inputs.yaml").read_text().replace("keypoints", "~/keypoints"))
    rig = Rig(graph, checkpoint=str(checkpoint), inputs_file=str(file), robots=["left"])
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    reason = "input 'environment_state' comes from 'left/~/keypoints', which is no topic: "
    rig.wait_for_status(DiagnosticStatus.ERROR, reason)


def test_settings_are_told_to_newcomers_and_at_every_change(graph: Graph, checkpoint: Any) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint)).start()
    rig.plan(T0)
    told = graph.listen(String, "policy_node/settings", LATCHED)
    graph.wait(lambda: told)
    first = json.loads(told[0].data)
    assert rig.info()["settings"] == first["id"]
    assert first["values"]["sampler"] == "sequential"
    assert rig.set(sampler="x0") == ""
    graph.wait(lambda: len(told) == 2)
    rig.plan(T0 + 8 * DT_NS)
    second = json.loads(told[1].data)
    assert second["values"]["sampler"] == "x0"
    assert rig.info()["settings"] == second["id"] != first["id"]


def test_markers_are_published_where_a_frame_is_given(graph: Graph, checkpoint: Any) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), marker_frame="world", marker_scale=0.001)
    markers = graph.listen(MarkerArray, "policy_node/markers")
    rig.start()
    chunk = rig.plan(T0)
    graph.wait(lambda: markers)
    line = markers[0].markers[0]
    assert line.header.frame_id == "world"
    assert [p.x for p in line.points] == pytest.approx(
        [0.001 * point.positions[0] for point in chunk.points]
    )
    bad = graph.add(
        PolicyNode,
        checkpoint=str(checkpoint),
        inputs_file=str(CONFIG / "pusht_inputs.yaml"),
        engine="eager",
        marker_frame="world",
        marker_axes=[0, 2],
    )
    assert bad.trigger_configure() != TransitionCallbackReturn.SUCCESS


@pytest.mark.parametrize("chunking", ["hard", "soft"])
def test_a_chunk_begins_with_the_actions_that_run_meanwhile(
    graph: Graph, checkpoint: Any, chunking: str
) -> None:
    rig = Rig(
        graph,
        checkpoint=str(checkpoint),
        lockstep=False,
        real_time_chunking=chunking,
        replan_steps=3,
        added_latency_ms=150.0,
    ).start()
    first_ns = rig.now_ns()
    before = rig.plan(first_ns)
    graph.wait(lambda: rig.now_ns() > first_ns + 3 * DT_NS)
    after = rig.plan(first_ns + 3 * DT_NS)
    info = rig.info()
    frozen = int(info["frozen"])
    assert (int(info["executed"]), 2 <= frozen <= 5) == (3, True)
    old, new = (
        np.array([list(point.positions) for point in message.points]) for message in (before, after)
    )
    np.testing.assert_allclose(new[:frozen], old[3 : 3 + frozen], atol=1e-3)


@pytest.mark.parametrize(
    "parameters",
    [
        {"real_time_chunking": "firm"},
        {"real_time_chunking": "hard", "warm_start": False, "lockstep": False},
        {"real_time_chunking": "hard", "lockstep": True},
        {"added_latency_ms": 5.0, "lockstep": True},
        {"latency_offset_s": -0.04, "lockstep": True},
    ],
)
def test_timing_that_cannot_be_is_refused(
    graph: Graph, checkpoint: Any, parameters: dict[str, Any]
) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), **parameters)
    assert rig.node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    rig.wait_for_status(DiagnosticStatus.ERROR, next(iter(parameters)))
