"""Chunks that are not to be trusted, and observations whose stamps are not."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from para_policy.planning.settings import PlannerSettings
from tests.planning.fake_policy import DT, LOCKSTEP, REAL_TIME, T0, Lone, make, observe

MS = 1_000_000


def make_answering(settings: PlannerSettings, *answers: dict[str, Any]) -> Lone:
    """A planner whose policy says `answers` of its chunks, one after the other."""
    planner, policy = make(settings)
    sample, left = policy.sample, list(answers)

    def answer(*arguments: Any, **options: Any) -> Any:
        result = sample(*arguments, **options)
        good = {"converged": True, "residual": 0.0, "error_bound": np.zeros(1)}
        result.stats = SimpleNamespace(**{**good, **left.pop(0)})
        return result

    policy.sample = answer
    return planner


BAD = {"converged": False, "residual": 0.25, "error_bound": np.array([math.nan])}


def test_a_run_of_unconverged_chunks_is_told_with_its_numbers() -> None:
    planner = make_answering(replace(REAL_TIME, max_unconverged=2), BAD, {}, BAD, BAD, {})
    said = []
    for step in (0, 8, 16, 24, 32):
        plan = planner.plan(observe(planner, step))
        said.append((plan.unconverged, plan.withheld, planner.planner.warnings()))
    text = "2 chunks in a row did not converge: residual 0.25, error bound nan; "
    assert [count for count, _, _ in said] == [1, 0, 1, 2, 0]
    assert not any(withheld for _, withheld, _ in said)
    assert [bool(warnings) for _, _, warnings in said] == [False, False, False, True, False]
    assert said[3][2][0].startswith(text)


@pytest.mark.parametrize(
    ("limits", "bad", "reason"),
    [
        ({"max_residual": 0.1}, BAD, "the residual of the chunk is 0.25, max_residual is 0.1"),
        (
            {"max_error": 2.0},
            {"error_bound": np.array([1.0, 3.0])},
            "the error bound of the chunk is 3, max_error is 2",
        ),
        ({"max_error": 2.0}, BAD, "the error bound of the chunk is nan, max_error is 2"),
    ],
)
def test_a_chunk_that_is_too_wrong_is_withheld_and_nothing_starts_from_it(
    limits: dict[str, Any], bad: dict[str, Any], reason: str
) -> None:
    settings = replace(REAL_TIME, warm_start=True, **limits)
    planner = make_answering(settings, {}, bad, bad, {}, {})
    assert not planner.plan(observe(planner, 0)).withheld
    assert planner.plan(observe(planner, 8)).withheld
    assert planner.withheld_reason() == (
        f"{reason}; the first chunk within it or ~/reset ends this"
    )
    assert planner.plan(observe(planner, 8.5)) is None
    again = planner.plan(observe(planner, 9))  # one in every step
    assert (again.withheld, again.executed) == (True, None)
    recovered = planner.plan(observe(planner, 10))
    assert (recovered.withheld, recovered.executed) == (False, None)
    assert planner.withheld_reason() is None
    assert planner.plan(observe(planner, 18)).executed == 8


def test_a_reset_forgives_and_lockstep_withholds_nothing() -> None:
    planner = make_answering(replace(REAL_TIME, max_residual=0.1), BAD)
    assert planner.plan(observe(planner, 0)).withheld
    planner.reset(seed=5)
    assert planner.withheld_reason() is None
    planner = make_answering(replace(LOCKSTEP, max_residual=0.1), BAD)
    assert not planner.plan(observe(planner, 0)).withheld


@pytest.mark.parametrize(("lead_ms", "told"), [(-300, False), (4, False), (6, True), (400, True)])
def test_stamps_ahead_of_the_clock_are_told_with_the_number(lead_ms: int, told: bool) -> None:
    planner, _ = make(REAL_TIME)
    for step in range(3):
        now_ns = T0 + step * DT
        planner.planner.observe("x", now_ns + lead_ms * MS, np.zeros(2), now_ns)
        planner.planner.observe("y", now_ns, np.zeros(1), now_ns)
    assert planner.hold_reason(now_ns) is None
    text = (
        f"x is stamped {lead_ms / 1000:.3f} s ahead of the clock, max_future_s is 0.005: "
        "synchronise the clocks (chrony)"
    )
    assert planner.planner.warnings() == ([text] if told else [])
    for step in range(3, 13):  # the clock has been set
        planner.planner.observe("x", T0 + step * DT, np.zeros(2), T0 + step * DT)
    assert planner.planner.warnings() == []


def test_observations_that_are_not_a_step_apart_are_told() -> None:
    planner, _ = make(REAL_TIME)
    first = planner.plan(observe(planner, 0))
    assert (first.spacing_ns, first.spacing_warning) == ({}, None)
    for step in range(1, 8):
        observe(planner, step + 0.003 * (-1) ** step)
    even = planner.plan(observe(planner, 8))
    assert even.spacing_ns == {"x": 100_300_000, "y": 100_300_000}
    assert even.spacing_warning is None
    for step in range(9, 13):
        observe(planner, step)
    uneven = planner.plan(observe(planner, 16))  # those between are lost
    assert uneven.spacing_warning == (
        "observations of x are 0.0 ms apart, observations of y are 0.0 ms apart, expected 100 "
        "within 40: the publisher is too slow, or messages are lost"
    )


def test_jitter_does_not_delay_a_chunk_by_a_step() -> None:
    planner, _ = make(replace(REAL_TIME, replan_steps=3))
    jittered = [step + 0.005 * (-1) ** step for step in range(12)]
    planned = [round(step) for step in jittered if planner.plan(observe(planner, step))]
    assert planned == [0, 3, 6, 9]
