"""Trajectory controller of a simulated arm: what ros2_control's does with the same messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError
from para_policy.ros.messages.conversions import stamp_to_ns
from sim.tasks.task import Array


class TrajectoryController:
    """The set-point of some joints, as a JointTrajectoryController of ros2_controllers 4.42 moves it.

    With `interpolate_from_desired_state`, positions only and no tolerances: docs/guides/arm.md tells
    what it does. A message replaces the one before at the next update, from the last set-point on,
    which counts as that of the last update although it was made for this one. The last point is
    kept for ever.

    Args:
        joints: their names, in the order of the set-points.
        period_ns: time between two updates.
        allow_partial_joints_goal: accept messages for some of the joints; the others are frozen.
    """

    def __init__(
        self, joints: Sequence[str], period_ns: int, *, allow_partial_joints_goal: bool = False
    ) -> None:
        self._joints = list(joints)
        self._period_ns = period_ns
        self._partial = allow_partial_joints_goal
        self.restart(np.zeros(len(self._joints)))

    def restart(self, set_point: ArrayLike) -> None:
        """Stand at `set_point` (J,), without a trajectory."""
        self._set_point: Array = np.array(set_point, dtype=np.float64)
        self._updated_ns: int | None = None
        self._new: JointTrajectory | None = None
        self._times_ns = np.zeros(1, np.int64)
        self._points = self._set_point[None]

    def take(self, message: JointTrajectory, now_ns: int) -> None:
        """Follow a trajectory from the next update on.

        Raises:
            InputError: where the controller refuses it, and goes on with the one before: other
                joints, no points, points of another size or not finite, times that do not rise, or
                a stamp with which all of it is past at `now_ns`.
        """
        named = list(message.joint_names)
        if not named or (len(named) != len(self._joints) and not self._partial):
            raise InputError(f"it names {len(named)} joints, expected all of {self._joints}")
        unknown = [name for name in named if name not in self._joints]
        if unknown or len(set(named)) < len(named):
            raise InputError(f"it names {', '.join(unknown or named)}; expected {self._joints}")
        if not message.points:
            raise InputError("it has no points; the one before stays in force")
        sizes = {len(point.positions) for point in message.points}
        if sizes != {len(named)}:
            raise InputError(f"points have {sorted(sizes)} positions, expected {len(named)}")
        if not np.isfinite([list(point.positions) for point in message.points]).all():
            raise InputError("a position is not finite")
        due = [stamp_to_ns(point.time_from_start) for point in message.points]
        if not all(earlier < later for earlier, later in pairwise(due)):
            raise InputError(f"times of its points do not rise: {due} ns")
        stamp_ns = stamp_to_ns(message.header.stamp)
        if stamp_ns and stamp_ns + due[-1] < now_ns:
            past_s = (now_ns - stamp_ns - due[-1]) / 1e9
            raise InputError(f"its last point is {past_s:.3f} s past")
        self._new = message

    def update(self, now_ns: int) -> Array:
        """The set-point (J,) for the time of the next update; this one is at `now_ns`."""
        if self._new is not None:
            self._begin(self._new, now_ns)
            self._new = None
        self._updated_ns = now_ns
        self._set_point = self._sample(now_ns + self._period_ns)
        return self._set_point.copy()

    def _begin(self, message: JointTrajectory, now_ns: int) -> None:
        begin_ns = now_ns - self._period_ns if self._updated_ns is None else self._updated_ns
        stamp_ns = stamp_to_ns(message.header.stamp) or now_ns
        places = [self._joints.index(name) for name in message.joint_names]
        points = np.tile(self._set_point, (len(message.points), 1))
        points[:, places] = [list(point.positions) for point in message.points]
        due = [stamp_ns + stamp_to_ns(point.time_from_start) for point in message.points]
        past = due[0] <= begin_ns  # the line from the set-point has no length, and the rest counts
        self._times_ns = np.array(due if past else [begin_ns, *due], np.int64)
        self._points = points if past else np.vstack([self._set_point, points])

    def _sample(self, time_ns: int) -> Array:
        after = int(np.searchsorted(self._times_ns, time_ns, side="right"))
        if after == len(self._times_ns):
            return np.array(self._points[-1])
        begin_ns, end_ns = self._times_ns[after - 1 : after + 1]
        part = (time_ns - begin_ns) / (end_ns - begin_ns)
        return np.array((1 - part) * self._points[after - 1] + part * self._points[after])
