"""Observations that are wrong, late, or do not come: the robot holds and goes on by itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import JointState

from para_policy.ros.messages.conversions import ns_to_stamp, stamp_to_ns
from tests.ros.faults.loop import DT_NS, POLICY, Loop


def nan(joints: JointState, _: PoseArray) -> None:
    joints.position[0] = float("nan")


def too_few_poses(_: JointState, keypoints: PoseArray) -> None:
    del keypoints.poses[-1]


def other_names(joints: JointState, _: PoseArray) -> None:
    joints.name = ["elbow", "wrist"]


def one_name(joints: JointState, _: PoseArray) -> None:
    joints.name, joints.position = ["agent_x"], joints.position[:1]


def fewer_positions(joints: JointState, _: PoseArray) -> None:
    del joints.position[-1]


def frozen_stamps(joints: JointState, keypoints: PoseArray) -> None:
    joints.header.stamp = keypoints.header.stamp = ns_to_stamp(10**9)


def too_late(joints: JointState, keypoints: PoseArray) -> None:
    stamp_ns = stamp_to_ns(joints.header.stamp) - 20 * DT_NS
    joints.header.stamp = keypoints.header.stamp = ns_to_stamp(stamp_ns)


def ahead(joints: JointState, keypoints: PoseArray) -> None:
    stamp_ns = stamp_to_ns(joints.header.stamp) + 100 * DT_NS
    joints.header.stamp = keypoints.header.stamp = ns_to_stamp(stamp_ns)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "agent_pos: input 'agent_pos' holds NaN"),
        (too_few_poses, "environment_state: input 'environment_state' has shape (14,)"),
        (
            other_names,
            "newest observation of agent_pos (a message names ['elbow', 'wrist'], none of agent_x, "
            "agent_y) is",
        ),
        (one_name, "newest values of joint agent_y are"),
        (fewer_positions, "agent_pos: no position of joint agent_y"),
        (frozen_stamps, "s old, the limit is 0.300 s"),
        (too_late, "s old, the limit is 0.300 s"),
        (ahead, "ahead of the clock"),
    ],
)
def test_unusable_observations_hold_the_robot_until_good_ones_come(
    loop: Loop, spoil: Callable[[JointState, PoseArray], None], reason: str
) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        spoil(joints, keypoints)
        loop.sensors.send(joints, keypoints)

    loop.sensors.feed = feed
    loop.wait_for_hold(reason, DiagnosticStatus.WARN)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()
    loop.wait_for_status("active", DiagnosticStatus.OK)


@pytest.mark.parametrize("silent", ["keypoints", "both"])
def test_missing_observations_hold_the_robot_until_they_are_back(loop: Loop, silent: str) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        if silent == "keypoints":
            loop.sensors.joints.publish(joints)

    loop.sensors.feed = feed
    loop.wait_for_hold("s old, the limit is 0.300 s")
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()


def test_frozen_values_hold_the_robot_where_a_limit_is_set(
    make_loop: Callable[..., Loop], tmp_path: Path
) -> None:
    inputs = yaml.safe_load(Path(POLICY["inputs_file"]).read_text())
    inputs["inputs"]["agent_pos"]["max_unchanged_s"] = 0.2
    file = tmp_path / "inputs.yaml"
    file.write_text(yaml.safe_dump(inputs))
    loop = make_loop(policy={"inputs_file": str(file)})
    loop.wait_for_motion()
    frozen = list(loop.sensors.measure()[0].position)

    def feed(joints: JointState, keypoints: PoseArray) -> None:
        joints.position = frozen
        loop.sensors.send(joints, keypoints)

    loop.sensors.feed = feed
    loop.wait_for_hold("agent_pos has not changed", DiagnosticStatus.WARN)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()


def late(loop: Loop) -> None:
    """All come three steps late, which is within their maximum age."""
    waiting: deque[tuple[JointState, PoseArray]] = deque()

    def feed(*observation: JointState | PoseArray) -> None:
        waiting.append(observation)
        if len(waiting) > 3:
            loop.sensors.send(*waiting.popleft())

    loop.sensors.feed = feed


def reordered(loop: Loop) -> None:
    """The older two of three come last, backwards."""
    waiting: list[tuple[JointState, PoseArray]] = []

    def feed(*observation: JointState | PoseArray) -> None:
        waiting.append(observation)
        if len(waiting) == 3:
            while waiting:
                loop.sensors.send(*waiting.pop())

    loop.sensors.feed = feed


def duplicated(loop: Loop) -> None:
    def feed(*observation: JointState | PoseArray) -> None:
        for _ in range(3):
            loop.sensors.send(*observation)

    loop.sensors.feed = feed


@pytest.mark.parametrize("disturb", [late, reordered, duplicated])
def test_disturbed_streams_are_played_in_order_and_once(
    loop: Loop, disturb: Callable[[Loop], None]
) -> None:
    disturb(loop)
    for _ in range(3):
        loop.wait_for_motion()
    stamps = [stamp_to_ns(chunk.header.stamp) for chunk in loop.judge.chunks]
    assert all(before < after for before, after in pairwise(stamps))


def test_values_of_another_unit_are_told_with_what_the_policy_knows(loop: Loop) -> None:
    def feed(joints: JointState, keypoints: PoseArray) -> None:
        joints.position = [1000.0 * position for position in joints.position]
        loop.sensors.send(joints, keypoints)

    loop.sensors.feed = feed
    loop.wait_for_status("active, but agent_pos: value ", DiagnosticStatus.WARN)
    loop.wait_for_status("where the policy knows about 0 to 512", DiagnosticStatus.WARN)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_status("active", DiagnosticStatus.OK)
