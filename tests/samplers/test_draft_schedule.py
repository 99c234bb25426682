"""The schedule of model switching (PCM): the share of the fine-tuning in each round."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from para_policy.errors import InputError
from para_policy.samplers import Draft
from tests.samplers.drafts import BLENDS, WRONG, always, named, pcm

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STIFFNESS = st.floats(1.0, 1e6)
HORIZONS = st.integers(1, 1000)


@given(STIFFNESS, HORIZONS, st.integers(0, 10**6))
def test_the_share_is_the_clipped_line(stiffness: float, horizon: int, k: int) -> None:
    line = 1 - Fraction(stiffness) * k / horizon
    share = Draft(always(WRONG), stiffness, horizon).share(k)
    assert share == pytest.approx(float(max(Fraction(0), line)), rel=0, abs=1e-12)
    assert 0 <= share <= 1


@given(STIFFNESS, HORIZONS)
def test_the_share_starts_at_one_never_rises_and_ends_at_zero(
    stiffness: float, horizon: int
) -> None:
    draft = Draft(always(WRONG), stiffness, horizon)
    shares = [draft.share(k) for k in range(50)]
    assert shares[0] == 1
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))
    assert draft.share(math.ceil(horizon / stiffness) + 1) == 0


def test_by_default_one_round_is_drafted() -> None:
    assert [Draft(always(WRONG)).share(k) for k in range(3)] == [1, 0, 0]


NUMBERS = [0, -1.0, math.nan, math.inf, "1", True, None]
COUNTS = [0, -1, 1.5, 2.0, "2", True, None]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("stiffness", value, "expected a finite number above 0") for value in NUMBERS),
        *(("horizon", value, "expected an integer of at least 1") for value in COUNTS),
        *(("stride", value, "expected an integer of at least 1") for value in COUNTS),
        *(
            ("blend", value, "expected one of weights, features, none")
            for value in ("weight", "", None, 1, ["none"])
        ),
    ],
)
def test_a_wrong_option_is_refused(name: str, value: Any, expected: str) -> None:
    for make in (lambda **o: Draft(always(WRONG), **o), lambda **o: pcm(WRONG, "x0", **o)):
        with pytest.raises(InputError) as error:
            make(**{name: value})
        assert str(error.value).startswith(f"{name} is {value!r}")
        assert expected in str(error.value)


@pytest.mark.parametrize("name", ["stiffness", "horizon"])
def test_a_number_beyond_all_floats_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 1000"):
        Draft(always(WRONG), **{name: 10**400})


def test_a_schedule_that_hardly_falls_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"horizon is 2: with stiffness 0.001 .*at most 1000 rounds"
    ):
        Draft(always(WRONG), stiffness=1e-3, horizon=2)


@pytest.mark.parametrize(
    ("blend", "expected"),
    [
        ("weights", [[(1.0, 1.0)], [(0.75, 1.0)], [(0.5, 1.0)], [(0.25, 1.0)]]),
        ("none", [[(1.0, 1.0)]] * 4),
        (
            "features",
            [
                [(1.0, 1.0)],
                [(1.0, 0.75), (None, 0.25)],
                [(1.0, 0.5), (None, 0.5)],
                [(1.0, 0.25), (None, 0.75)],
            ],
        ),
    ],
)
def test_the_networks_of_each_round(blend: Any, expected: list[list[tuple[Any, float]]]) -> None:
    draft = Draft(named, horizon=4, blend=blend)
    for k, parts in enumerate(expected):
        networks = tuple((share and named(share), part) for share, part in parts)
        assert draft.networks(k) == networks
    for k in (4, 5, 100):
        assert draft.networks(k) == ((None, 1.0),)


@given(st.sampled_from(BLENDS), STIFFNESS, HORIZONS, st.integers(0, 100))
def test_the_parts_of_a_step_sum_to_one(blend: Any, stiffness: float, horizon: int, k: int) -> None:
    draft = Draft(named, stiffness, horizon, blend)
    networks = draft.networks(k)
    assert sum(part for _, part in networks) == pytest.approx(1.0)
    assert all(0 < part <= 1 for _, part in networks)
    tuned = [network for network, _ in networks if network is not None]
    assert len(tuned) == (draft.share(k) > 0)
