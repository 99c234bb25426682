"""Guards: limits that no command may break, whatever the policy says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.execution.coordinates import UNKNOWN, Coordinates

Array = NDArray[np.float64]
Limit = Sequence[float]
_NO_LIMIT = (math.inf,)
_LONGEST_PERIODS = 3.0
"""Most that the time between two commands may count, in command periods."""


@dataclass(frozen=True)
class Limits:
    """One number for all joints or one for each; infinite: not limited.

    Attributes:
        position_min, position_max: box of the commands, their unit.
        velocity_max: of consecutive commands, unit per second; of a rotation, the angle of the turn.
        acceleration_max: of consecutive commands, unit per second squared.
        max_jump: distance of a command from the present state of its joint, their unit.
    Raises:
        InputError: when a limit is NaN, not positive, the box is empty, or lengths differ.
    """

    position_min: Limit = (-math.inf,)
    position_max: Limit = _NO_LIMIT
    velocity_max: Limit = _NO_LIMIT
    acceleration_max: Limit = _NO_LIMIT
    max_jump: Limit = _NO_LIMIT

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if not limit or any(math.isnan(number) for number in limit):
                raise InputError(f"{name} is {list(limit)}, expected numbers; .inf: no limit")
            if not name.startswith("position") and min(limit) <= 0:
                raise InputError(f"{name} is {list(limit)}, expected numbers > 0; .inf: no limit")
        lengths = {len(limit) for limit in vars(self).values()} - {1}
        if len(lengths) > 1:
            raise InputError(
                f"limits are given for {sorted(lengths)} joints; "
                "expected one number for all joints or one for each, in every limit"
            )
        if np.any(np.array(self.position_min) >= np.array(self.position_max)):
            raise InputError(
                f"position_min is {list(self.position_min)}, expected less than position_max "
                f"{list(self.position_max)}"
            )

    @property
    def joints(self) -> int | None:
        """Number of joints that have limits of their own; None where one number counts for all."""
        longest = max(len(limit) for limit in vars(self).values())
        return longest if longest > 1 else None

    @property
    def need_state(self) -> bool:
        return "max_jump" in self.given()

    @property
    def motion(self) -> bool:
        """True where velocity or acceleration are limited."""
        return not {"velocity_max", "acceleration_max"}.isdisjoint(self.given())

    def given(self) -> list[str]:
        """Names of the limits that limit something."""
        return [name for name, limit in vars(self).items() if np.isfinite(limit).any()]


@dataclass(frozen=True)
class Violation:
    """The limit that a command would have broken; `value` is beyond `limit` (or not finite)."""

    guard: str
    joint: str
    value: float
    limit: float

    def __str__(self) -> str:
        return (
            f"{self.guard} guard: {self.joint} would have {self.value:.6g}, limit {self.limit:.6g}"
        )


@dataclass(frozen=True)
class _Motion:
    """The way from one command to the next.

    Attributes:
        velocity: (A,) over the time between them, but at least one command period.
        real_velocity: (A,) over the time between them.
        elapsed_s: this time, at most three periods.
    """

    velocity: Array
    real_velocity: Array
    elapsed_s: float


class Guards:
    """Check of each command against the limits, the commands before it, and the present state.

    Differences are taken over the time that has passed since the last command, as a timer that is
    late lets the command move on meanwhile. It counts at least one period, as a controller takes
    a step at once, and at most three, so that a long pause does not allow a big jump. A tick
    that is late shortens the period after it: the acceleration is therefore only refused when
    it is too large over the periods that counted and also over those that really passed.

    A robot that holds stands at the last command: its velocity is 0 and the next command is
    compared to the last one as if it had been sent one period ago. Before the first command it
    stands at its present state.

    Args:
        period_s: time between commands.
        joint_names: for messages; empty: joints are counted from 0.
        commands_are_velocities: the velocity limit bounds the commands themselves, and the
            acceleration limit their differences.
        coordinates: what they mean: differences are those of angles and rotations, not of numbers.
    """

    def __init__(
        self,
        limits: Limits,
        period_s: float,
        joint_names: Sequence[str] = (),
        *,
        commands_are_velocities: bool = False,
        coordinates: Coordinates = UNKNOWN,
    ) -> None:
        self._limits = limits
        self._period_s = period_s
        self._joint_names = list(joint_names)
        self._direct = commands_are_velocities
        self._coordinates = coordinates
        # A change of velocity is limited by the acceleration alone.
        direct = Limits(velocity_max=limits.acceleration_max)
        self.limits_of_change = direct if commands_are_velocities else limits
        """Of the commands, whatever they mean: their first and second derivative."""
        self.last: Array | None = None
        """The last command that was sent."""
        self._rest = _Motion(np.zeros(1), np.zeros(1), period_s)
        self._motion = self._rest
        self._sent_ns: int | None = None

    @property
    def need_state(self) -> bool:
        """True where the next command cannot be judged without the present state."""
        return self._limits.need_state or (self.last is None and self.start_at_state)

    @property
    def start_at_state(self) -> bool:
        """True where a motion may begin nowhere but at the present state."""
        return self._limits.motion and not self._direct

    @property
    def period_s(self) -> float:
        return self._period_s

    def forget(self) -> None:
        """The robot may have been moved by somebody else: the next command is a first one."""
        self.last = None
        self.stand()

    def standing(self, action: Array, present: Array | None) -> Array:
        """Where a robot that does not move stands, in the coordinates of the commands.

        That is `action` itself where nobody knows it, as nothing needs to know it.
        """
        if self._direct:
            return np.zeros_like(action)
        known = present if self.last is None else self.last
        return action if known is None else known

    def way(self, end: Array, start: Array) -> Array:
        """Size (A,) of the way from `start` to `end`, as the limits count it."""
        return self._coordinates.sizes(self._coordinates.difference(end, start))

    def begin(self, start: Array) -> None:
        """The next command is a motion from `start` (A,), where the robot stands."""
        self.last = start
        self.stand()

    def stand(self) -> None:
        """Nothing new was sent for a period: the robot stands still."""
        self._motion = self._rest
        self._sent_ns = None

    @np.errstate(over="ignore", invalid="ignore")
    def sent(self, command: Array, now_ns: int | None = None) -> None:
        """`command` (A,) goes out at `now_ns`; None: one period after the one before."""
        self._motion = self._motion_to(command, now_ns)
        self.last = command
        self._sent_ns = now_ns

    def check(
        self, command: Array, state: Array | None = None, now_ns: int | None = None
    ) -> Violation | None:
        """The first limit that `command` (A,) would break; None where it may be sent.

        Args:
            state: (A,) present positions of the joints, for the jump guard.
            now_ns: when it would be sent; None: one period after the last one.
        """
        return self.check_place(command, state) or self.check_motion(command, now_ns)

    def check_place(self, command: Array, state: Array | None = None) -> Violation | None:
        """Like `check`, for where the robot is told to be, whatever the way there."""
        limits = self._limits
        violation = (
            self._first("finite", command, _NO_LIMIT, ~np.isfinite(command))
            or self._first(
                "position_min", command, limits.position_min, command < limits.position_min
            )
            or self._first(
                "position_max", command, limits.position_max, command > limits.position_max
            )
        )
        if violation is None and state is not None:
            violation = self.beyond("max_jump", self.way(command, state), limits.max_jump)
        return violation

    @np.errstate(over="ignore", invalid="ignore")
    def check_motion(self, command: Array, now_ns: int | None = None) -> Violation | None:
        """Like `check`, for the way from the last command to this one."""
        if self.last is None and not self._direct:
            return None
        last, motion = self._motion, self._motion_to(command, now_ns)
        limits = self._limits
        velocity = self._coordinates.sizes(motion.velocity)
        if violation := self.beyond("velocity_max", velocity, limits.velocity_max):
            return violation
        counted_s = max(motion.elapsed_s, self._period_s)
        acceleration = self._coordinates.sizes((motion.velocity - last.velocity) / counted_s)
        violation = self.beyond("acceleration_max", acceleration, limits.acceleration_max)
        if violation is None or self._direct:
            return violation
        # The velocities are those of the middles of the two periods.
        real_s = (motion.elapsed_s + last.elapsed_s) / 2
        real = self._coordinates.sizes((motion.real_velocity - last.real_velocity) / real_s)
        return violation if self.beyond("", real, limits.acceleration_max) else None

    def _motion_to(self, command: Array, now_ns: int | None) -> _Motion:
        """Motion from the last command to this one."""
        elapsed_s = self._elapsed_s(now_ns)
        if self._direct:
            return _Motion(command, command, elapsed_s)
        last = command if self.last is None else self.last
        moved = self._coordinates.difference(command, last)
        return _Motion(moved / max(elapsed_s, self._period_s), moved / elapsed_s, elapsed_s)

    def _elapsed_s(self, now_ns: int | None) -> float:
        """Time since the last command."""
        if now_ns is None or self._sent_ns is None or now_ns <= self._sent_ns:
            return self._period_s
        return min((now_ns - self._sent_ns) / 1e9, _LONGEST_PERIODS * self._period_s)

    def beyond(self, guard: str, values: Array, limit: Limit) -> Violation | None:
        """The first of `values` (A,) that is farther from 0 than `limit`; None where none is."""
        # Negated, so that a difference that overflowed to NaN is a violation, too.
        return self._first(guard, values, limit, ~(np.abs(values) <= limit))

    def _first(
        self, guard: str, values: Array, limit: Limit, broken: NDArray[np.bool_]
    ) -> Violation | None:
        if not broken.any():
            return None
        index = int(broken.argmax())
        joint = self._joint_names[index] if self._joint_names else f"action {index}"
        bound = float(np.broadcast_to(limit, values.shape)[index])
        return Violation(guard, joint, float(values[index]), bound)
