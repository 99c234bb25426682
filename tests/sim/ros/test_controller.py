"""What a simulated arm does with trajectories: the rules of docs/guides/arm.md, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from para_policy.errors import InputError
from para_policy.ros.messages.conversions import ns_to_duration, ns_to_stamp
from sim.ros.controller import TrajectoryController

MS = 1_000_000
PERIOD_NS = 2 * MS
START = [1.0, -1.0]
NOW_NS = 5_000 * MS


def trajectory(
    points: Sequence[tuple[int, list[float]]],
    joints: Sequence[str] = ("a", "b"),
    stamp_ns: int = 0,
) -> JointTrajectory:
    """Points with their times in milliseconds."""
    message = JointTrajectory(joint_names=list(joints))
    message.header.stamp = ns_to_stamp(stamp_ns)
    for due_ms, positions in points:
        due = ns_to_duration(due_ms * MS)
        message.points.append(JointTrajectoryPoint(positions=positions, time_from_start=due))
    return message


class Arm:
    """A controller with its clock."""

    def __init__(self, **options: bool) -> None:
        self._controller = TrajectoryController(["a", "b"], PERIOD_NS, **options)
        self._controller.restart(START)
        self.now_ns = NOW_NS
        self.run(4)

    def take(self, message: JointTrajectory) -> None:
        self._controller.take(message, self.now_ns)

    def run(self, milliseconds: int) -> np.ndarray:
        """All set-points of this time, (updates, 2)."""
        found = []
        for _ in range(milliseconds * MS // PERIOD_NS):
            found.append(self._controller.update(self.now_ns))
            self.now_ns += PERIOD_NS
        return np.array(found)


def test_it_stands_until_it_is_told_something() -> None:
    np.testing.assert_array_equal(Arm().run(20), [START] * 10)


def test_it_moves_on_lines_from_its_set_point_and_keeps_the_last_point() -> None:
    arm = Arm()
    arm.take(trajectory([(10, [2.0, -1.0]), (20, [2.0, 0.0])]))
    moved = arm.run(30)
    # The set-point of the last update counts as one update old: the first step is twice as long.
    np.testing.assert_allclose(moved[:5, 0], 1 + np.array([4, 6, 8, 10, 12]) / 12)
    np.testing.assert_array_equal(moved[4], [2.0, -1.0])
    np.testing.assert_allclose(moved[4:10, 1], np.linspace(-1, 0, 6))
    np.testing.assert_array_equal(moved[9:], [[2.0, 0.0]] * 6)


def test_a_new_message_replaces_the_old_one_whole() -> None:
    arm = Arm()
    arm.take(trajectory([(10, [2.0, -1.0]), (20, [9.0, 9.0])]))
    (before,) = arm.run(2)
    arm.take(trajectory([(10, [0.0, -1.0])]))
    after = arm.run(20)
    assert 0 < after[0, 0] < before[0]
    assert (np.diff(after[:, 0]) <= 0).all()
    np.testing.assert_array_equal(after[-1], [0.0, -1.0])


def test_a_stamp_places_the_points_on_the_clock_and_past_ones_are_left_out() -> None:
    arm = Arm()
    stamp_ns = arm.now_ns - 15 * MS
    arm.take(trajectory([(10, [2.0, 0.0]), (20, [3.0, 1.0]), (30, [4.0, 2.0])], stamp_ns=stamp_ns))
    moved = arm.run(20)
    # 5 ms after the first point: the set-point steps onto the line in one update.
    np.testing.assert_allclose(moved[0], [2.0 + 0.7, 0.7])
    np.testing.assert_array_equal(moved[-1], [4.0, 2.0])


def test_joints_are_found_by_name() -> None:
    arm = Arm()
    arm.take(trajectory([(4, [5.0, 6.0])], joints=["b", "a"]))
    np.testing.assert_array_equal(arm.run(10)[-1], [6.0, 5.0])


def test_joints_that_a_message_leaves_out_are_frozen_where_it_is_allowed() -> None:
    arm = Arm(allow_partial_joints_goal=True)
    arm.take(trajectory([(10, [2.0, 0.0])]))
    (before,) = arm.run(2)
    arm.take(trajectory([(4, [5.0])], joints=["a"]))
    np.testing.assert_array_equal(arm.run(20)[-1], [5.0, before[1]])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (trajectory([(10, [2.0])], joints=["a"]), "names 1 joints, expected all"),
        (trajectory([(10, [2.0, 0.0])], joints=["a", "c"]), "names c; expected"),
        (trajectory([(10, [2.0, 0.0])], joints=["a", "a"]), "names a, a; expected"),
        (trajectory([(10, [])], joints=[]), "names 0 joints"),
        (trajectory([]), "no points"),
        (trajectory([(10, [2.0])]), r"have \[1\] positions, expected 2"),
        (trajectory([(10, [2.0, float("nan")])]), "not finite"),
        (trajectory([(10, [2.0, 0.0]), (10, [3.0, 0.0])]), "do not rise"),
        (trajectory([(10, [2.0, 0.0])], stamp_ns=NOW_NS - 15 * MS), r"0\.009 s past"),
    ],
)
def test_what_it_refuses_changes_nothing(message: JointTrajectory, reason: str) -> None:
    arm, alone = Arm(), Arm()
    for one in (arm, alone):
        one.take(trajectory([(20, [2.0, 0.0])]))
    with pytest.raises(InputError, match=reason):
        arm.take(message)
    np.testing.assert_array_equal(arm.run(30), alone.run(30))
