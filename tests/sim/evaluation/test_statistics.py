"""Intervals and the equivalence test, against known values and in degenerate cases."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from para_policy.errors import InputError
from sim.evaluation.statistics import (
    compare_paired,
    episodes_needed,
    least_episodes,
    mcnemar_p,
    mean_interval,
    percentiles,
    ratio_interval,
    success_interval,
)


def test_bootstrap_interval_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_interval_is_reproducible() -> None:
    values = np.random.default_rng(1).random(30)
    assert mean_interval(values) == mean_interval(values)


def test_bootstrap_coverage_is_about_95_percent() -> None:
    random = np.random.default_rng(2)
    covered = [
        low < 0.5 < high for low, high in (mean_interval(random.random(40)) for _ in range(60))
    ]
    assert np.mean(covered) > 0.85


def test_an_interval_of_many_episodes_takes_little_memory() -> None:
    values = np.random.default_rng(5).random(4000)
    tracemalloc.start()
    try:
        low, high = mean_interval(values)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 2e8  # all resamples at once would take 6.4e8 bytes
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)


def test_interval_of_a_ratio_is_that_of_the_mean_for_equal_counts() -> None:
    values = np.random.default_rng(6).normal(3.0, 2.0, 100)
    assert ratio_interval(7 * values, np.full(100, 7)) == pytest.approx(
        mean_interval(values), abs=0.03
    )


def test_interval_of_a_ratio_covers_the_mean_over_all_values() -> None:
    """Long episodes count more: values of 1 in those, of 0 in the short ones."""
    counts = np.array([1, 9] * 50)
    low, high = ratio_interval(np.where(counts == 9, 9.0, 0.0), counts)
    assert 0.8 < low < 0.9 < high < 0.95


@pytest.mark.parametrize(
    ("sums", "counts"), [([6.0], [3]), ([6.0, 2.0], [3, 1]), ([0.0, 1e-300], [1, 2])]
)
def test_degenerate_ratios_have_finite_intervals(sums: list[float], counts: list[int]) -> None:
    low, high = ratio_interval(sums, counts)
    ratios = np.divide(sums, counts)
    assert ratios.min() <= low <= high <= ratios.max()


@pytest.mark.parametrize(("sums", "counts"), [([1.0], [0]), ([1.0, 2.0], [1]), ([], [])])
def test_unusable_ratios(sums: list[float], counts: list[int]) -> None:
    with pytest.raises(InputError):
        ratio_interval(sums, counts)


def test_wilson_interval() -> None:
    # Known values: 64 of 100, and the limits at none and all of 10.
    assert success_interval(64, 100) == pytest.approx((0.5424, 0.7273), abs=1e-4)
    assert success_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert success_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    "values", [[0.7], [0.7, 0.7, 0.7], [0.0, 1.0], [0.0, 1e-300], [1.0, 1.0 + 3e-16, 1.0]]
)
def test_degenerate_values_have_finite_intervals(values: list[float]) -> None:
    low, high = mean_interval(values)
    assert np.isfinite([low, high]).all()
    assert min(values) <= low <= high <= max(values)


def test_equivalent_when_the_interval_lies_within_the_margin() -> None:
    random = np.random.default_rng(3)
    reference = random.random(200)
    other = reference + 0.005 + random.normal(0.0, 0.02, 200)
    result = compare_paired(reference, other, 0.02)
    assert result.difference == pytest.approx((other - reference).mean())
    assert result.ci95[0] < result.difference < result.ci95[1]
    assert result.equivalent
    assert result.episodes == 200


MARGIN = 0.02


@pytest.mark.parametrize(
    ("shift", "spread", "episodes", "verdict"),
    [
        (0.0, 0.0, 4, "too few episodes to say"),  # the interval has no width, and yet
        (0.0, 0.0, 148, "too few episodes to say"),
        (0.0, 0.0, 149, "equivalent"),
        (0.0, 0.05, 20, "too few episodes to say"),
        (0.0, 0.05, 200, "equivalent"),
        (0.0, 0.3, 200, "too few episodes to say"),
        (0.015, 0.1, 500, "not shown equivalent"),
        (-0.5, 0.05, 20, "too few episodes to say"),
        (-0.06, 0.05, 200, "different"),
        (0.06, 0.05, 200, "different"),
    ],
)
def test_verdicts_need_episodes(shift: float, spread: float, episodes: int, verdict: str) -> None:
    noise = np.random.default_rng(4).normal(0.0, 1.0, episodes)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    found = compare_paired(np.zeros(episodes), shift + spread * noise, MARGIN)
    assert found.verdict == verdict
    assert found.equivalent == (verdict == "equivalent")
    assert (found.episodes < found.episodes_needed) == (verdict == "too few episodes to say")


def test_the_number_needed_has_the_power_that_it_is_for() -> None:
    """Equal samplers are found equivalent in about four of five runs of so many episodes."""
    spread, random = 0.2, np.random.default_rng(7)
    needed = episodes_needed(spread, MARGIN)
    half = 1.96 * spread / np.sqrt(needed)
    means = random.normal(0.0, spread, (2000, needed)).mean(axis=1)
    assert np.mean(np.abs(means) + half < MARGIN) == pytest.approx(0.8, abs=0.03)


def test_fewer_episodes_than_the_least_may_miss_losses_as_large_as_the_margin() -> None:
    assert least_episodes(MARGIN) == 149
    for margin in (0.005, 0.02, 0.1, 0.5):
        n = least_episodes(margin)
        assert (1 - margin) ** n <= 0.05 < (1 - margin) ** (n - 1)


def test_pairing_removes_the_spread_between_start_states() -> None:
    reference = np.random.default_rng(5).random(50)
    result = compare_paired(reference, reference + 0.001, 0.02)
    assert result.ci95[1] - result.ci95[0] < 1e-9


def test_all_differences_zero() -> None:
    result = compare_paired(np.ones(5), np.ones(5), 0.02)
    assert (result.difference, result.ci95) == (0.0, (0.0, 0.0))


def test_one_episode_says_nothing() -> None:
    result = compare_paired([0.9], [0.9], 0.02)
    assert result.ci95 == (0.0, 0.0)
    assert result.verdict == "too few episodes to say"


def test_percentiles() -> None:
    assert percentiles(np.arange(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


@pytest.mark.parametrize("values", [[], [np.nan], [[1.0]]])
def test_unusable_values(values: list[float]) -> None:
    with pytest.raises(InputError):
        mean_interval(values)


def test_unusable_comparisons() -> None:
    with pytest.raises(InputError, match="equal lengths"):
        compare_paired([1.0], [1.0, 2.0], 0.02)
    for margin in (-0.1, 0.0, 1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="margin"):
            compare_paired([1.0], [1.0], margin)
    with pytest.raises(InputError, match="not possible"):
        success_interval(3, 2)


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 10, 2 / 2**10)])
def test_mcnemar_is_a_fair_coin_for_the_pairs_that_differ(won: int, lost: int, p: float) -> None:
    assert mcnemar_p(won, lost) == mcnemar_p(lost, won) == pytest.approx(p)
