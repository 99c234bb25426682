"""Approach: how a robot that stands begins to move, within the limits of velocity and acceleration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.coordinates import Coordinates
from para_policy.execution.guards import Guards, Limits, Violation

Array = NDArray[np.float64]
_PACES = (1.0, 0.5, 0.25, 0.0)
"""Of the fade, in control periods for each period: the fastest that keeps the limits is taken."""
_SHARE = 0.5
"""Of the limits, for the fade; the rest is for the motion of the actions."""


@np.errstate(over="ignore", invalid="ignore")
def fade_times_s(way: Array, limits: Limits) -> Array:
    """Time (A,) that a smooth step over `way` (A,) takes within half of the limits of motion.

    The largest velocity of such a step is 1.5 way / time, its largest acceleration 6 way / time^2.
    """
    way = np.abs(way) / _SHARE
    by_velocity = 1.5 * way / limits.velocity_max
    times: Array = np.maximum(by_velocity, np.sqrt(6.0 * way / limits.acceleration_max))
    return times


class Approach:
    """The way from where the robot stands to the actions that are due. Not thread-safe.

    The policy says where the robot should be by now, which it is not after `~/enable`, a violation
    or a pause. So commands fade from where it stands to the actions: their weight rises from 0 to 1
    along a smooth step. That takes as long as it must for the fade to stay within half of the
    limits; the other half is left to the motion of the actions themselves. Where both together would
    break a limit the fade is slowed down, and where this is not enough the robot stands for a period
    and begins anew. Once the weight is 1 the actions are played as they are.

    Unknown coordinates fade number by number, as the limits count them: where they must be known the
    robot tells them in `joint_states`, so that they are those of joints.

    Args:
        coordinates: of the actions.
        longest_s: an approach that would take longer is refused; 0: any that takes more than one
            command period.
    """

    def __init__(self, guards: Guards, coordinates: Coordinates, longest_s: float) -> None:
        self._guards = guards
        self._coordinates = coordinates.or_numbers()
        self._longest_s = max(longest_s, guards.period_s)
        self._start: Array | None = None
        self._elapsed_s = 0.0
        self._duration_s = 0.0
        self._joined = False

    @property
    def under_way(self) -> bool:
        return self._start is not None and not self._joined

    def stand(self) -> None:
        """The robot stands: the next command begins a new approach."""
        self._start, self._joined = None, False

    def step(self, action: Array, present: Array | None, now_ns: int) -> Array | Violation | None:
        """The command (A,) of this period on the way to `action`; None: stand for this period.

        Args:
            present: (A,) positions of the joints, where they are known.
        """
        if self._joined:
            return action
        if self._start is None and (violation := self._begin(action, present)):
            return violation
        for pace in _PACES:
            elapsed_s = self._elapsed_s + pace * self._guards.period_s
            command = self._fade(action, elapsed_s)
            if self._guards.check_motion(command, now_ns) is None:
                self._elapsed_s = elapsed_s
                self._joined = elapsed_s >= self._duration_s
                return command
        return None

    def _begin(self, action: Array, present: Array | None) -> Violation | None:
        guards = self._guards
        start = guards.standing(action, present)
        times = fade_times_s(guards.way(action, start), guards.limits_of_change)
        self._duration_s = float(times.max())
        if violation := guards.beyond("max_approach_s", times, (self._longest_s,)):
            return violation
        if self._duration_s > guards.period_s and (violation := guards.check_place(start, present)):
            return violation
        guards.begin(start)
        self._start, self._elapsed_s = start, 0.0
        return None

    def _fade(self, action: Array, elapsed_s: float) -> Array:
        if self._start is None or elapsed_s >= self._duration_s:
            return action
        share = elapsed_s / self._duration_s
        part = share * share * (3.0 - 2.0 * share)
        command = self._coordinates.interpolate(self._start, action, part)
        last = self._guards.last
        return command if last is None else self._coordinates.align(command, last)
