"""The preset `pcm`: its options and the solver that follows the drafts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from para_policy import samplers
from para_policy.errors import InputError
from para_policy.samplers import Chord, Draft, FixedPoint, LowRankChord, Prior
from tests.samplers.drafts import (
    WRONG,
    N,
    always,
    assert_exact,
    base_only,
    exact_problem,
    matrices,
    named,
    noise_of,
    pcm,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_the_solver_after_the_switch_is_that_of_the_splitting() -> None:
    def after(splitting: str, **options: Any) -> FixedPoint:
        return base_only(pcm(named, splitting, **options))

    ours = {"tolerance": 0.03, "window": 7, "lookahead": 2, "history": 4, "max_rounds": 9}
    assert after("x0", **ours) == samplers.get("x0", **ours)
    assert after("x0") == samplers.get("x0")
    picard = samplers.get("paradigms", window=7, tolerance=0.03, max_rounds=9)
    chosen = {key: ours[key] for key in ("window", "tolerance", "max_rounds")}
    assert after("identity", **chosen) == dataclasses.replace(picard, guess=Prior())
    whole = samplers.get("paradigms", window=None)
    assert after("identity") == dataclasses.replace(whole, guess=Prior())
    given = matrices(N)
    made = after("chord", matrices=given, **ours)
    expected = samplers.get("chord", matrices=given, **ours)
    assert isinstance(made.splitting, Chord)
    assert made.splitting.matrices is given
    assert dataclasses.replace(made, splitting=expected.splitting) == expected


def test_the_chord_takes_matrices_in_factors() -> None:
    solved = exact_problem("ddpm")
    left = 0.1 * matrices(N)[:, :, :2]
    sampler = pcm(always(WRONG), "chord", matrices=(left, left.mT), tolerance=0.0, horizon=2)
    assert isinstance(sampler.splitting, LowRankChord)
    assert_exact(solved, sampler, noise_of(solved))


def test_options_reach_the_switching() -> None:
    assert pcm(named, "x0").guess == Draft(named, blend="none")
    sampler = pcm(named, "x0", stiffness=0.5, horizon=3, blend="features", stride=4)
    assert sampler.guess == Draft(named, 0.5, 3, "features", 4)


@pytest.mark.parametrize(
    ("splitting", "options", "message"),
    [
        ("picard", {}, "splitting is 'picard'; expected one of identity, x0, chord"),
        (None, {}, "splitting is None; expected one of identity, x0, chord"),
        ("chord", {}, "'chord' needs matrices; run para-policy calibrate"),
        ("x0", {"tolerance": -1.0}, "tolerance is -1.0"),
        ("identity", {"tolerance": math.nan}, "tolerance is nan"),
        ("identity", {"window": 0}, "window is 0"),
        ("x0", {"lookahead": 0}, "lookahead is 0"),
        ("x0", {"history": 0}, "history is 0"),
        ("x0", {"max_rounds": 0}, "max_rounds is 0"),
        ("x0", {"horizn": 2}, "no option.*horizn.*horizon"),
        ("identity", {"lookahead": 3}, "lookahead is 3; splitting 'identity' has none"),
    ],
)
def test_a_wrong_choice_is_refused(splitting: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        samplers.get("pcm", consistency=always(WRONG), splitting=splitting, **options)


def test_the_fine_tuned_network_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match=r"pcm.*consistency"):
        samplers.get("pcm", splitting="x0")
