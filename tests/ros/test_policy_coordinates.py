"""Observations and chunks of coordinates that are no plain numbers, over DDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Pose, PoseArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState

from para_policy.planning.history import observation_digest
from para_policy.ros.messages.conversions import ns_to_stamp
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import DT_NS, KEYPOINTS, T0, Rig

HALF_WAY = T0 + DT_NS // 2
SOFT: dict[str, Any] = {"lockstep": False, "real_time_chunking": "soft", "replan_steps": 3}


def inputs_file(folder: Path, **changes: Any) -> str:
    """The mapping of PushT with `changes` of the agent's position."""
    content = yaml.safe_load((CONFIG / "pusht_inputs.yaml").read_text())
    content["inputs"]["agent_pos"] |= {"interpolation": "linear", **changes}
    path = folder / "inputs.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def plan_half_way(rig: Rig) -> str:
    """Digest of what the policy sees amid two samples on both sides of pi."""
    for step, angle in enumerate((3.1, -3.1)):
        joints = JointState(name=["agent_x", "agent_y"], position=[angle, 100.0 * step])
        joints.header.stamp = ns_to_stamp(T0 + step * DT_NS)
        rig.joints.publish(joints)
    history = rig.node._parts.fleet.planners[""]._inputs.history
    rig.graph.wait(lambda: history.newest_ns().get("agent_pos") == T0 + DT_NS)
    keypoints = PoseArray()
    keypoints.header.stamp = ns_to_stamp(HALF_WAY)
    for x, y in KEYPOINTS.reshape(-1, 2).tolist():
        pose = Pose()
        pose.position.x, pose.position.y = x, y
        keypoints.poses.append(pose)
    rig.keypoints.publish(keypoints)
    rig.graph.wait(lambda: rig.chunks)
    return rig.info()["observation"]


def digest_of(angle: float, other: float) -> str:
    agent = np.array([[3.1, 0.0], [angle, other]])
    return observation_digest({"agent_pos": agent, "environment_state": np.tile(KEYPOINTS, (2, 1))})


def test_an_angle_between_two_samples_is_on_the_shorter_way(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    file = inputs_file(tmp_path, coordinates=["angle 0", "number 1"])
    rig = Rig(graph, checkpoint=str(checkpoint), inputs_file=file).start()
    turn = 2 * np.pi
    amid = 3.1 + 0.5 * (-3.1 - 3.1 + turn)
    assert amid == pytest.approx(np.pi)
    assert plan_half_way(rig) == digest_of(amid - turn, 50.0)


def test_values_that_nobody_told_are_held_and_a_warning_says_so(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    heard = graph.warnings()
    rig = Rig(graph, checkpoint=str(checkpoint), inputs_file=inputs_file(tmp_path)).start()
    assert plan_half_way(rig) == digest_of(3.1, 0.0)
    graph.wait(
        lambda: any("values 0, 1 of input agent_pos are not interpolated" in t for t in heard)
    )


def test_soft_chunking_of_unknown_coordinates_is_hard_and_a_warning_says_so(
    graph: Graph, checkpoint: Path
) -> None:
    heard = graph.warnings()
    told = ["number 0", "angle 1"]
    for coordinates in ([""], told):
        rig = Rig(graph, checkpoint=str(checkpoint), coordinates=coordinates, **SOFT)
        assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        rig.node.trigger_cleanup()
        graph.wait(lambda: heard)
    graph.spin_for(0.3)
    (warning,) = heard
    assert "coordinates 0, 1 of the action are chunked as with real_time_chunking 'hard'" in warning


@pytest.mark.parametrize(
    ("coordinates", "reason"),
    [
        (["angle 2"], "'angle 2' name coordinate 2; there are 2, 0 to 1"),
        (["number 0-1", "angle 0"], "coordinate 0 is in 'number 0-1' and in 'angle 0'"),
        (["rotation_vector 0-1"], "are 2; this kind expects 3"),
    ],
)
def test_wrong_coordinates_are_refused_at_configure(
    graph: Graph, checkpoint: Path, coordinates: list[str], reason: str
) -> None:
    rig = Rig(graph, checkpoint=str(checkpoint), coordinates=coordinates)
    assert rig.node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    rig.wait_for_status(DiagnosticStatus.ERROR, reason)
