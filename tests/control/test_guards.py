from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from para_policy.control.guards import Guards, Limits
from para_policy.errors import InputError

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
