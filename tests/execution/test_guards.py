from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from para_policy.errors import InputError
from para_policy.execution.coordinates import read_coordinates
from para_policy.execution.guards import Guards, Limits

PERIOD_S = 0.5


def make_guards(*sent: float, direct: bool = False, **limits: Any) -> Guards:
    """Guards of one joint that has been sent these commands."""
    given = Limits(**{name: (limit,) for name, limit in limits.items()})
    guards = Guards(given, PERIOD_S, ["elbow"], commands_are_velocities=direct)
    for command in sent:
        guards.sent(np.array([command]))
    return guards


@pytest.mark.parametrize(
    ("guards", "good", "bad", "guard", "value", "limit"),
    [
        (make_guards(position_min=-1.0), -1, -1.5, "position_min", -1.5, -1),
        (make_guards(position_max=2.0), 2, 2.5, "position_max", 2.5, 2),
        (make_guards(0, velocity_max=4.0), -2, -2.5, "velocity_max", -5, 4),
        (make_guards(0, 1, acceleration_max=4.0), 3, 3.5, "acceleration_max", 6, 4),
        (make_guards(max_jump=1.0), 11, 11.5, "max_jump", 1.5, 1),
        (make_guards(0), 1e308, float("nan"), "finite", float("nan"), float("inf")),
        (make_guards(0), 1e308, float("inf"), "finite", float("inf"), float("inf")),
        (make_guards(velocity_max=2.0, direct=True), -2, 2.5, "velocity_max", 2.5, 2),
        (make_guards(acceleration_max=2.0, direct=True), 1, 1.5, "acceleration_max", 3, 2),
    ],
)
def test_each_guard_lets_its_limit_pass_and_nothing_beyond(
    guards: Guards, good: float, bad: float, guard: str, value: float, limit: float
) -> None:
    state = np.array([10.0])
    assert guards.check(np.array([good], dtype=float), state) is None
    violation = guards.check(np.array([bad], dtype=float), state)
    assert violation is not None
    assert (violation.guard, violation.joint) == (guard, "elbow")
    np.testing.assert_equal([violation.value, violation.limit], [value, limit])


def test_limits_are_of_each_joint() -> None:
    guards = Guards(Limits(position_max=(1.0, 2.0, np.inf)), PERIOD_S, ["a", "b", "c"])
    assert guards.check(np.array([1.0, 2.0, 1e9])) is None
    violation = guards.check(np.array([1.0, 3.0, 0.0]))
    assert str(violation) == "position_max guard: b would have 3, limit 2"


def test_difference_that_overflows_is_a_violation() -> None:
    guards = make_guards(-1e308, velocity_max=1e300)
    assert guards.check(np.array([1e308])).guard == "velocity_max"
    guards = make_guards(-1.7e308, 0, acceleration_max=4.0)  # both velocities are infinite
    assert guards.check(np.array([1.7e308])).guard == "acceleration_max"


def test_a_state_that_is_no_number_is_a_violation() -> None:
    guards = make_guards(max_jump=1e9)
    assert guards.check(np.array([0.0]), np.array([np.nan])).guard == "max_jump"


TICKS = (0.0, 1.0, 2.8, 3.0, 4.0, 5.5, 6.0, 7.0)
"""In periods. A timer that was late keeps its grid: the next period is the shorter."""


def first_refused(guards: Guards, positions: np.ndarray, ticks: Sequence[float]) -> str:
    """Guard that refuses the first of these commands that is refused; '': none."""
    for position, tick in zip(positions, ticks, strict=True):
        now_ns = 10**9 + round(tick * PERIOD_S * 1e9)
        violation = guards.check(np.array([position]), now_ns=now_ns)
        if violation is not None:
            return violation.guard
        guards.sent(np.array([position]), now_ns)
    return ""


@pytest.mark.parametrize(("allowed", "refused"), [(2.001, ""), (1.999, "velocity_max")])
def test_late_ticks_do_not_change_a_constant_velocity(allowed: float, refused: str) -> None:
    positions = 2.0 * PERIOD_S * np.array(TICKS)
    assert first_refused(make_guards(velocity_max=allowed), positions, TICKS) == refused


def test_late_ticks_are_no_acceleration() -> None:
    guards = make_guards(acceleration_max=1e-6)
    for tick in (-1, 0):  # it moves already
        guards.sent(np.array([tick * PERIOD_S]), 10**9 + round(tick * PERIOD_S * 1e9))
    assert first_refused(guards, PERIOD_S * np.array(TICKS[1:]), TICKS[1:]) == ""


@pytest.mark.parametrize(("allowed", "refused"), [(3.001, ""), (2.999, "acceleration_max")])
def test_late_ticks_do_not_change_a_constant_acceleration(allowed: float, refused: str) -> None:
    positions = 1.5 * (PERIOD_S * np.array(TICKS)) ** 2
    assert first_refused(make_guards(acceleration_max=allowed), positions, TICKS) == refused


@pytest.mark.parametrize(
    ("tick", "step", "refused"),
    [
        (0.2, 1.01, "velocity_max"),  # a step in a short period counts as over a whole one
        (0.2, 0.99, ""),
        (2.0, 2.01, "velocity_max"),
        (2.0, 1.99, ""),
        (50.0, 3.01, "velocity_max"),  # a pause counts as three periods
        (50.0, 2.99, ""),
        (-5.0, 1.01, "velocity_max"),  # a clock that was set back
        (-5.0, 0.99, ""),
    ],
)
def test_the_time_since_the_last_command_counts_within_bounds(
    tick: float, step: float, refused: str
) -> None:
    guards = make_guards(velocity_max=1 / PERIOD_S)
    assert first_refused(guards, np.array([0.0, step]), (0.0, tick)) == refused


@pytest.mark.parametrize(("step", "refused"), [(1.01, "acceleration_max"), (0.99, "")])
def test_a_step_in_a_short_period_accelerates_as_in_a_whole_one(step: float, refused: str) -> None:
    guards = make_guards(acceleration_max=1 / PERIOD_S**2)
    assert first_refused(guards, np.array([0.0, step]), (0.0, 0.2)) == refused


def test_a_pause_in_which_the_robot_stood_does_not_count() -> None:
    guards = make_guards(velocity_max=1 / PERIOD_S)
    guards.sent(np.array([0.0]), 10**9)
    guards.stand()
    assert guards.check(np.array([1.01]), now_ns=2 * 10**9).guard == "velocity_max"


def test_after_standing_a_motion_starts_from_rest() -> None:
    guards = make_guards(0, 1, acceleration_max=4.0)
    guards.stand()
    assert guards.check(np.array([2.0])) is None
    assert guards.check(np.array([2.5])).guard == "acceleration_max"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"velocity_max": (0.0,)}, r"velocity_max is \[0.0\], expected numbers > 0"),
        ({"max_jump": (float("nan"),)}, "max_jump is .nan., expected numbers"),
        ({"position_min": ()}, "position_min is "),
        ({"position_min": (1.0,), "position_max": (2.0, 1.0)}, "expected less than position_max"),
        ({"velocity_max": (1.0,) * 2, "max_jump": (1.0,) * 3}, r"given for \[2, 3\] joints"),
    ],
)
def test_nonsense_is_refused(limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Limits(**limits)


def test_limits_know_what_is_given() -> None:
    limits = Limits(position_min=(-1.0,), max_jump=(np.inf, 1.0))
    assert limits.given() == ["position_min", "max_jump"]
    assert limits.joints == 2
    assert Limits().given() == []
    assert Limits().joints is None


ROTATION = ["number 0", "rotation_vector 1-3"]


def x(radians: float) -> np.ndarray:
    return np.array([0.0, radians, 0.0, 0.0])


@pytest.mark.parametrize("numbers", [1, -1])
def test_rotations_are_limited_by_the_angle_of_their_turn(numbers: int) -> None:
    """Commands on both sides of pi: the numbers jump, the rotation turns by 0.2."""
    limits = Limits(velocity_max=(9.0, 0.5, 0.5, 0.5), acceleration_max=(99.0, 0.9, 0.9, 0.9))
    guards = Guards(limits, PERIOD_S, coordinates=read_coordinates(ROTATION))
    guards.sent(x(np.pi - 0.1))
    near = x(numbers * np.pi + 0.1)
    assert guards.check(near) is None  # 0.4 rad/s, 0.8 rad/s²
    violation = guards.check(near + x(0.1))
    assert violation.guard == "velocity_max"
    assert (violation.joint, violation.value) == ("action 1", pytest.approx(0.6))
    guards.sent(near)
    assert guards.check(near + x(0.2)) is None
    assert guards.check(near) is None  # a stop
    violation = guards.check(near - x(0.2))
    assert (violation.guard, violation.value) == ("acceleration_max", pytest.approx(1.6))


def test_jumps_of_angles_and_rotations_are_measured_the_shorter_way() -> None:
    guards = Guards(
        Limits(max_jump=(0.3,)), PERIOD_S, coordinates=read_coordinates(["angle 0", *ROTATION[1:]])
    )
    state = np.array([3.1, 0.0, np.pi - 0.05, 0.0])
    assert guards.check(np.array([-3.1, 0.0, -np.pi + 0.05, 0.0]), state) is None
    assert guards.check(np.array([-2.8, 0.0, np.pi - 0.05, 0.0]), state).joint == "action 0"
    assert guards.check(np.array([3.1, 0.6, np.pi - 0.05, 0.0]), state).joint == "action 1"
