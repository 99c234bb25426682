"""Several robots that are planned for in one batch."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from para_policy.errors import NonFiniteError
from para_policy.planning.fleet import Fleet
from para_policy.planning.seeding import chunk_seed
from para_policy.planning.solver import Cancelled
from tests.planning.fake_policy import DT, LOCKSTEP, REAL_TIME, T0, FakePolicy, make, observe


@pytest.mark.parametrize(("steps", "expected"), [(0, [0, 7, 14]), (3, [0, 3, 6, 9, 12, 15])])
def test_chunks_are_replaced_when_asked_for(steps: int, expected: list[int]) -> None:
    planner, _ = make(replace(REAL_TIME, replan_steps=steps))
    planned = [step for step in range(16) if planner.plan(observe(planner, step))]
    assert planned == expected


def fleet(settings: Any = REAL_TIME) -> tuple[Fleet, FakePolicy]:
    policy = FakePolicy()
    return Fleet(policy, settings, seed=5, robots=("left", "right", "lift")), policy


def test_robots_that_are_due_share_a_batch() -> None:
    robots, policy = fleet()
    for name in ("left", "right"):
        observe(robots.planners[name], 0, value=1.0 + (name == "right"))
    plans = robots.plan(T0)
    assert sorted(plans) == ["left", "right"]
    assert {plan.batch for plan in plans.values()} == {2}
    assert policy.seeds == [[chunk_seed(5, 0)] * 2]
    assert policy.observations[0]["y"].tolist() == [[1, 1], [2, 2]]
    observe(robots.planners["lift"], 0)
    assert robots.plan(T0)["lift"].batch == 1
    assert robots.plan(T0) == {}


def test_a_robot_that_starts_does_not_make_the_others_start_afresh() -> None:
    robots, policy = fleet(replace(REAL_TIME, warm_start=True))
    observe(robots.planners["left"], 0)
    robots.plan(T0)
    for name in robots.planners:
        now = observe(robots.planners[name], 8)
    plans = robots.plan(now)
    assert {name: (plan.executed, plan.batch) for name, plan in plans.items()} == {
        "left": (8, 1),
        "right": (None, 2),
        "lift": (None, 2),
    }
    assert [options.get("executed") for options in policy.options] == [None, [8], None]
    again = observe(robots.planners["left"], 16), observe(robots.planners["lift"], 15)
    assert {plan.executed for plan in robots.plan(max(again)).values()} == {7, 8}
    assert policy.options[-1]["executed"] == [8, 7]


def fleet_that_fails_for_right(error: Exception) -> tuple[Any, Any, Any]:
    """Robots that have observed, a policy that raises for one of them, and its method that does not."""
    robots, policy = fleet()
    for name in robots.planners:
        observe(robots.planners[name], 0, value=float(name == "right"))
    sample = policy.sample

    def refuse_ones(observation: dict[str, np.ndarray], **options: Any) -> Any:
        if observation["y"].max() == 1:
            raise error
        return sample(observation, **options)

    policy.sample = refuse_ones
    return robots, policy, sample


class SlowPolicy(FakePolicy):
    """Takes all the time that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.spoilt: float | None = None
        self.given_s: dict[float, float] = {}

    def sample(self, observation: dict[str, np.ndarray], *, seed: Any, **options: Any) -> Any:
        result = super().sample(observation, seed=seed, **options)
        if self.spoilt in observation["y"]:
            raise NonFiniteError("overflow")
        threading.Event().wait(options["deadline_s"])
        self.given_s |= dict.fromkeys(observation["y"].ravel().tolist(), options["deadline_s"])
        return result


@pytest.mark.parametrize("first", ["left", "lift"])
def test_a_robot_that_starts_afresh_and_the_others_share_the_time(first: str) -> None:
    """Whichever was solved first took it all, and the chunks of the others were one round old."""
    policy = SlowPolicy()
    names = (first, "right", "left" if first == "lift" else "lift")
    settings = replace(REAL_TIME, warm_start=True, anytime=True, deadline_s=1.0)
    robots = Fleet(policy, settings, seed=5, robots=names)
    for name in names:
        observe(robots.planners[name], 0)
    robots.plan(T0)
    robots.planners["left"].reset(seed=5)
    for value, name in enumerate(names):
        now = observe(robots.planners[name], 8, value=float(value))
    policy.given_s.clear()
    plans = robots.plan(now)
    assert {name: plan.executed is None for name, plan in plans.items()} == {
        name: name == "left" for name in names
    }
    assert min(policy.given_s.values()) > 0.2
    assert sum({*policy.given_s.values()}) <= 1.0


def test_robots_that_are_solved_one_by_one_share_the_time() -> None:
    policy = SlowPolicy()
    robots = Fleet(policy, replace(REAL_TIME, anytime=True, deadline_s=1.0), 5, ("a", "b", "c"))
    for value, name in enumerate(robots.planners):
        observe(robots.planners[name], 0, value=float(value))
    policy.spoilt = 0.0
    plans = robots.plan(T0)
    assert isinstance(plans["a"], NonFiniteError)
    assert min(policy.given_s[1.0], policy.given_s[2.0]) > 0.2
    assert policy.given_s[1.0] + policy.given_s[2.0] <= 1.0


def test_one_robots_failure_does_not_hold_the_others_and_uses_up_no_noise() -> None:
    robots, policy, sample = fleet_that_fails_for_right(NonFiniteError("the network returned NaN"))
    plans = robots.plan(T0)
    assert isinstance(plans["right"], NonFiniteError)
    assert plans["left"].chunk.id == plans["lift"].chunk.id == 0
    policy.sample = sample
    assert robots.plan(T0)["right"].chunk.id == 0  # no noise was used up


@pytest.mark.parametrize("error", [NonFiniteError("NaN"), ZeroDivisionError(), MemoryError()])
def test_an_error_of_any_kind_is_its_robots_own(error: Exception) -> None:
    robots, *_ = fleet_that_fails_for_right(error)
    plans = robots.plan(T0)
    assert plans["right"] is error
    assert plans["left"].chunk.id == plans["lift"].chunk.id == 0


def test_stamps_of_one_robot_that_drift_apart_hold_it_alone_and_name_both_inputs() -> None:
    """One input may be old, the other runs on: what belongs to the old one is forgotten."""
    robots, _ = fleet(replace(REAL_TIME, max_ages_ns={"y": 200 * DT}))
    right = robots.planners["right"]
    for step in range(150):
        right.observe("x", T0 + step * DT, np.zeros(2))
        if step == 0:
            right.observe("y", T0, np.zeros(1))
    now = observe(robots.planners["left"], 149)
    assert list(robots.plan(now)) == ["left"]
    assert robots.planners["left"].hold_reason(now) is None
    assert right.hold_reason(now) == (
        "x is stamped 14.900 s after y, and samples are kept for 10.2 s: check the stamps of both"
    )


def test_a_reset_concerns_one_robot() -> None:
    robots, _ = fleet()
    for name in robots.planners:
        observe(robots.planners[name], 0)
    robots.plan(T0)
    robots.planners["left"].reset(seed=9)
    for name in robots.planners:
        now = observe(robots.planners[name], 8)
    plans = robots.plan(now)
    assert plans["left"].seed == chunk_seed(9, 0)
    assert plans["right"].seed == chunk_seed(5, 1)


def test_a_cancelled_fleet_plans_no_more() -> None:
    robots, policy = fleet()
    observe(robots.planners["left"], 0)
    policy.during = robots.cancel
    with pytest.raises(Cancelled):
        robots.plan(T0)
    with pytest.raises(Cancelled):
        robots.plan(T0)


def test_added_latency_counts_as_latency() -> None:
    planner, _ = make(replace(REAL_TIME, added_latency_s=0.25))
    planner.warm_up()
    assert planner.plan(observe(planner, 0)).latency_s >= 0.25
    due = next(step for step in range(1, 9) if planner.plan(observe(planner, step)))
    assert due == 5  # 8 steps, less 0.25 s and one step of margin


def test_the_digest_tells_observations_apart() -> None:
    digests = []
    for value in (0.0, 0.0, 1e-300, -0.0):
        planner, _ = make(LOCKSTEP)
        digests.append(planner.plan(observe(planner, 0, value=value)).observation)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_change_while_robots_are_asked_is_that_of_later_chunks_in_all() -> None:
    """The observations that a policy sees and the actions of its chunk are the same step apart."""
    robots, _ = fleet()
    for name in robots.planners:
        for step in range(5):
            now = observe(robots.planners[name], step, value=step)
    changed = threading.Event()

    def change() -> None:
        robots.change(replace(REAL_TIME, dt_ns=2 * DT))
        changed.set()

    right = robots.planners["right"]
    ask = right.request

    def ask_amid_a_change(*arguments: Any) -> Any:
        threading.Thread(target=change).start()
        assert changed.wait(10)
        return ask(*arguments)

    right.request = ask_amid_a_change
    plans = robots.plan(now)
    assert {name: plan.chunk.dt_ns // DT for name, plan in plans.items()} == {
        "left": 1,
        "right": 2,
        "lift": 2,
    }
    for plan in plans.values():
        seen = plan.seen["y"]
        assert (seen[1] - seen[0]) * DT == plan.chunk.dt_ns == plan.settings.dt_ns
    assert sorted(plan.batch for plan in plans.values()) == [1, 2, 2]
