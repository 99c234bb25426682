"""Deadlines, warm starts, changes of settings and the clock."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from para_policy import samplers
from para_policy.errors import InputError
from para_policy.execution.coordinates import NUMBERS
from tests.planning.fake_policy import DT, LOCKSTEP, REAL_TIME, T0, make, observe


def test_a_sampler_that_can_stop_gets_what_is_left_of_the_deadline() -> None:
    settings = replace(REAL_TIME, deadline_s=5.0, anytime=True)
    for changed, enforced in [
        (settings, True),
        (replace(settings, anytime=False), False),
        (replace(settings, lockstep=True), False),
        (replace(settings, deadline_s=0.0), False),
    ]:
        planner, policy = make(changed)
        planner.warm_up()
        plan = planner.plan(observe(planner, 0))
        assert all("deadline_s" not in options for options in policy.options[:-1])
        assert ("deadline_s" in policy.options[-1]) == enforced
        due_ns = T0 + 5_000_000_000 if changed.deadline_s else None
        assert plan.due_ns == due_ns
        if enforced:
            # All that is left of it: the policy keeps a reserve of its own, and one is enough. With
            # two it would be 4.5.
            assert 4.55 < policy.options[-1]["deadline_s"] <= 5.0
            assert plan.settings.deadline_s == 5.0


def test_too_many_late_chunks_are_withheld_until_one_is_in_time() -> None:
    planner, policy = make(replace(REAL_TIME, deadline_s=0.02, max_overruns=2))
    policy.during = lambda: threading.Event().wait(0.03)
    first, second = (planner.plan(observe(planner, step)) for step in (0, 8))
    assert (first.withheld, first.overruns) == (False, 1)
    assert (second.withheld, second.overruns) == (True, 2)
    assert planner.withheld_reason() == (
        "2 chunks in a row took longer than deadline_ms = 20; one in time or ~/reset ends this"
    )
    assert planner.plan(observe(planner, 8.5)) is None
    probe = planner.plan(observe(planner, 9))  # one in every step, although chunk 8 lasts
    assert (probe.withheld, probe.overruns, probe.deadline_misses) == (True, 3, 3)
    policy.during = lambda: None
    recovered = planner.plan(observe(planner, 10))
    assert (recovered.withheld, recovered.overruns, recovered.deadline_misses) == (False, 0, 3)
    assert planner.withheld_reason() is None


@pytest.mark.parametrize("way", ["reset", "change"])
def test_reset_and_new_settings_forgive_late_chunks(way: str) -> None:
    settings = replace(REAL_TIME, deadline_s=0.01, max_overruns=1)
    planner, policy = make(settings)
    policy.during = lambda: threading.Event().wait(0.02)
    assert planner.plan(observe(planner, 0)).withheld
    if way == "reset":
        planner.reset(seed=5)
    else:
        planner.change(replace(settings, deadline_s=1.0))
    assert planner.withheld_reason() is None
    # Whoever got no chunk waits for none to run out.
    assert planner.plan(observe(planner, 1)).withheld == (way == "reset")


def test_lockstep_and_no_limit_withhold_nothing() -> None:
    for settings in (replace(LOCKSTEP, max_overruns=1), replace(REAL_TIME, max_overruns=0)):
        planner, policy = make(replace(settings, deadline_s=0.01))
        policy.during = lambda: threading.Event().wait(0.02)
        plan = planner.plan(observe(planner, 0))
        assert (plan.withheld, plan.overruns) == (False, 1)


@pytest.mark.parametrize(
    ("step", "executed"), [(8, 8), (8.2, 8), (7.8, 8), (8.4, None), (15, 15), (16, None)]
)
def test_a_solve_starts_from_the_chunk_before(step: float, executed: int | None) -> None:
    planner, policy = make(replace(REAL_TIME, warm_start=True, shift_noise=True))
    assert planner.plan(observe(planner, 0)).executed is None
    assert "previous" not in policy.options[-1]
    plan = planner.plan(observe(planner, step))
    assert plan.executed == executed
    options = policy.options[-1]
    assert options.get("executed") == (None if executed is None else [executed])
    assert ("previous" in options, options.get("shift_noise", False)) == (
        executed is not None,
        executed is not None,
    )


def test_no_warm_start_in_lockstep_after_a_reset_or_at_another_rate() -> None:
    planner, _ = make(replace(LOCKSTEP, warm_start=True))
    planner.plan(observe(planner, 0))
    assert planner.plan(observe(planner, 8)).executed is None
    settings = replace(REAL_TIME, warm_start=True)
    planner, _ = make(settings)
    planner.plan(observe(planner, 0))
    planner.reset(seed=5)
    assert planner.plan(observe(planner, 8)).executed is None
    planner.change(replace(settings, dt_ns=2 * DT))
    assert planner.plan(observe(planner, 16)).executed is None
    assert planner.plan(observe(planner, 32)).executed == 8


def test_settings_change_between_two_chunks_and_never_in_one() -> None:
    planner, policy = make(REAL_TIME)
    other = replace(REAL_TIME, dt_ns=DT // 2, n_action_steps=3, sampler_name="other")
    policy.during = lambda: planner.change(other)
    before = planner.plan(observe(planner, 0))
    policy.during = lambda: None
    after = planner.plan(observe(planner, 8))
    assert (before.chunk.dt_ns, before.settings.sampler_name) == (DT, "")
    assert before.chunk.actions.ravel().tolist() == list(range(8))
    assert (after.chunk.dt_ns, after.settings.sampler_name) == (DT // 2, "other")
    assert after.chunk.actions.ravel().tolist() == [0, 1, 2]
    observe(planner, 8.5, value=8.5)
    observe(planner, 9, value=9)
    planner.plan(observe(planner, 9.5, value=9.5))
    assert policy.observations[-1]["y"].tolist() == [9, 9.5]  # half a step apart now


def test_without_a_deadline_no_chunk_is_late() -> None:
    planner, policy = make(replace(REAL_TIME, deadline_s=0.0, max_overruns=1))
    policy.during = lambda: threading.Event().wait(0.02)
    plan = planner.plan(observe(planner, 0))
    assert (plan.overruns, plan.deadline_misses, plan.withheld) == (0, 0, False)


def test_a_chunk_of_old_settings_says_nothing_about_new_ones() -> None:
    settings = replace(REAL_TIME, deadline_s=0.01, max_overruns=1)
    planner, policy = make(settings)

    def change() -> None:
        planner.change(replace(settings, deadline_s=1.0))
        threading.Event().wait(0.02)

    policy.during = change
    plan = planner.plan(observe(planner, 0))
    assert (plan.overruns, plan.withheld) == (0, False)
    assert planner.withheld_reason() is None


def test_a_sampler_that_does_not_work_is_not_taken_over() -> None:
    planner, policy = make(REAL_TIME)
    policy.error = InputError("not with this process")
    with pytest.raises(InputError, match="not with this process"):
        planner.change(replace(REAL_TIME, sampler=samplers.get("x0"), n_action_steps=3))
    policy.error = None
    assert planner.settings is REAL_TIME
    assert len(planner.plan(observe(planner, 0)).chunk.actions) == 8


def test_every_input_may_have_its_own_age() -> None:
    planner, _ = make(replace(REAL_TIME, max_ages_ns={"y": 20 * DT}))
    planner.observe("y", T0, np.zeros(1))
    planner.observe("x", T0 + 10 * DT, np.zeros(2))
    assert planner.observation_ages_s(T0 + 11 * DT) == {"x": 0.1, "y": 1.1}
    assert planner.plan(T0 + 11 * DT).chunk.stamp_ns == T0
    assert planner.hold_reason(T0 + 16 * DT) == (
        "the newest observation of x is 0.600 s old, the limit is 0.500 s"
    )


def test_observations_from_the_future_hold() -> None:
    planner, _ = make(REAL_TIME)
    stamp = observe(planner, 0)
    assert planner.plan(stamp - 6 * DT) is None
    assert planner.hold_reason(stamp - 6 * DT) == (
        "the newest observation of x is stamped 0.600 s ahead of the clock"
    )


def test_a_clock_that_jumps_ahead_holds_until_the_observations_follow() -> None:
    planner, policy = make(REAL_TIME)
    planner.plan(observe(planner, 0, value=1))
    assert planner.plan(T0 + 1000 * DT) is None
    assert "100.000 s old" in planner.hold_reason(T0 + 1000 * DT)
    plan = planner.plan(observe(planner, 1000, value=2))
    assert plan.chunk.stamp_ns == T0 + 1000 * DT
    assert policy.observations[-1]["y"].tolist() == [2, 2]  # nothing from before the jump


def test_late_and_repeated_observations_change_no_chunk_in_force() -> None:
    planner, policy = make(REAL_TIME)
    for step in (0, 2, 1, 1, 3):
        observe(planner, step, value=step)
    assert planner.plan(T0 + 3 * DT).chunk.stamp_ns == T0 + 3 * DT
    assert policy.observations[-1]["y"].tolist() == [2, 3]
    observe(planner, 3, value=9)
    assert planner.plan(T0 + 3 * DT) is None


def test_linear_inputs_are_interpolated() -> None:
    linear = replace(REAL_TIME, linear=frozenset({"y"}), coordinates={"y": NUMBERS})
    planner, policy = make(linear)
    for step in (-1.5, -0.5, 0):
        observe(planner, step, value=step)
    planner.plan(T0)
    assert policy.observations[-1]["x"][:, 0].tolist() == [-1.5, 0]
    np.testing.assert_allclose(policy.observations[-1]["y"], [-1, 0])


def test_a_sensor_that_repeats_itself_holds_until_it_changes() -> None:
    planner, _ = make(replace(REAL_TIME, max_unchanged_s={"x": 0.3}))
    for step in range(4):
        now = observe(planner, step, value=1)
    assert planner.hold_reason(now) is None
    now = observe(planner, 4, value=1)
    assert planner.hold_reason(now) == (
        "x has not changed for 0.400 s, the limit is 0.3 s: the sensor may be frozen"
    )
    assert planner.plan(now) is None
    assert planner.plan(observe(planner, 5, value=2)) is not None
    observe(planner, 9, value=2)
    planner.reset(seed=5)
    assert planner.plan(observe(planner, 12, value=2)) is not None
