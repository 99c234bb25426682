from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from para_policy.errors import InputError, NonFiniteError
from para_policy.planning.seeding import chunk_seed
from tests.planning.fake_policy import DT, LOCKSTEP, REAL_TIME, T0, make, observe


def test_lockstep_plans_exactly_when_the_chunk_has_been_played() -> None:
    planner, policy = make()
    stamps = []
    for step in range(25):
        now = observe(planner, step, value=step)
        plan = planner.plan(now)
        if plan is not None:
            stamps.append((plan.chunk.stamp_ns - T0) // DT)
            assert planner.plan(now) is None
    assert stamps == [0, 8, 16, 24]
    assert policy.seeds == [chunk_seed(5, index) for index in range(4)]
    assert [list(o["y"]) for o in policy.observations] == [[0, 0], [7, 8], [15, 16], [23, 24]]
    assert policy.observations[0]["x"].shape == (2, 2)


def test_real_time_plans_early_enough_for_its_own_latency() -> None:
    planner, policy = make(REAL_TIME)
    policy.during = lambda: threading.Event().wait(0.15)
    planner.plan(observe(planner, 0))
    due = next(step for step in range(1, 9) if planner.plan(observe(planner, step)))
    assert due in (5, 6)  # 8 steps, less 0.15 s and one step of margin


def test_nothing_is_planned_until_every_input_is_there() -> None:
    planner, _ = make()
    assert planner.hold_reason(T0) == "no observation yet of x, y"
    planner.observe("x", T0, np.zeros(2))
    assert planner.plan(T0) is None
    assert planner.hold_reason(T0) == "no observation yet of y"


def test_stale_observations_hold() -> None:
    planner, _ = make(REAL_TIME)
    stamp = observe(planner, 0)
    assert planner.plan(stamp + 6 * DT) is None
    assert planner.hold_reason(stamp + 6 * DT) == (
        "the newest observation of x is 0.600 s old, the limit is 0.500 s"
    )


@pytest.mark.parametrize(
    ("values", "error"), [([np.nan, 0], NonFiniteError), ([1.0, 2.0, 3.0], InputError)]
)
def test_faulty_input_holds_until_it_is_good_again(
    values: list[float], error: type[Exception]
) -> None:
    planner, _ = make()
    observe(planner, 0)
    with pytest.raises(error) as caught:
        planner.observe("x", T0 + DT, np.array(values))
    planner.reject("x", str(caught.value))
    assert planner.plan(T0) is None
    assert planner.hold_reason(T0) == f"x: {caught.value}"
    assert planner.plan(observe(planner, 2)) is not None


def test_pixels_reach_the_policy_as_they_are() -> None:
    planner, policy = make(camera=(3, 4, 5))
    planner.warm_up()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), dtype=np.uint8)
    for step, image in enumerate(pixels):
        planner.observe("camera", T0 + step * DT, image)
        observe(planner, step)
    assert planner.plan(T0 + DT) is not None
    warm, seen = policy.observations[0], policy.observations[-1]
    np.testing.assert_array_equal(seen["camera"], pixels)
    assert {name: (value.dtype, value.shape) for name, value in warm.items()} == {
        name: (value.dtype, value.shape) for name, value in seen.items()
    }
    with pytest.raises(InputError, match=r"shape \(3, 4, 4\), expected \(3, 4, 5\)"):
        planner.observe("camera", T0 + 2 * DT, np.zeros((3, 4, 4), dtype=np.uint8))


def test_reset_restarts_the_noise_and_ignores_stragglers() -> None:
    planner, policy = make()
    planner.plan(observe(planner, 0))
    planner.plan(observe(planner, 8))
    planner.reset(seed=6)
    assert planner.plan(observe(planner, 11, value=1)) is None  # the last chunk covers step 11
    assert planner.plan(observe(planner, 30, value=2)) is not None
    assert policy.seeds == [chunk_seed(5, 0), chunk_seed(5, 1), chunk_seed(6, 0)]
    assert policy.observations[-1]["y"].tolist() == [2, 2]


def test_reset_during_planning_discards_the_plan() -> None:
    planner, policy = make()
    now = observe(planner, 0)
    policy.during = lambda: planner.reset(seed=5)
    assert planner.plan(now) is None
    policy.during = lambda: None
    assert planner.plan(observe(planner, 1)).chunk.id == 0


def test_time_that_starts_again_begins_an_episode() -> None:
    planner, policy = make()
    planner.plan(observe(planner, 100))
    assert planner.plan(observe(planner, 0)).chunk.id == 0
    assert policy.seeds == [chunk_seed(5, 0)] * 2


def test_one_message_that_is_far_too_late_is_no_time_that_starts_again() -> None:
    planner, policy = make(REAL_TIME)
    old_ns = REAL_TIME.max_age_ns + DT
    for step in range(20):
        now_ns = T0 + step * DT
        for name, size in (("x", 2), ("y", 1)):
            planner.observe(name, now_ns, np.full(size, step), now_ns)
            planner.observe(name, now_ns - old_ns, np.full(size, 99.0), now_ns)
            planner.observe(name, now_ns - old_ns, np.full(size, np.nan), now_ns)
        planner.plan(now_ns)
    assert planner.planner.episode == 1
    assert policy.seeds == [chunk_seed(5, index) for index in range(len(policy.seeds))]
    assert len(policy.seeds) > 1


def test_failed_plan_does_not_use_up_noise() -> None:
    planner, policy = make()
    now = observe(planner, 0)
    policy.error = NonFiniteError("diverged")
    with pytest.raises(NonFiniteError, match="diverged"):
        planner.plan(now)
    policy.error = None
    assert planner.plan(now).chunk.id == 0


def test_deadline_misses_are_counted() -> None:
    planner, policy = make(replace(LOCKSTEP, deadline_s=0.02))
    policy.during = lambda: threading.Event().wait(0.03)
    assert planner.plan(observe(planner, 0)).deadline_misses == 1
    policy.during = lambda: None
    assert planner.plan(observe(planner, 8)).deadline_misses == 1
