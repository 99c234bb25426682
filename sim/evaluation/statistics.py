"""Intervals and the paired equivalence test; the results are finite for any n >= 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from para_policy.errors import InputError

RESAMPLES = 9999
CONFIDENCE = 0.95
POWER = 0.8
_DRAWN_AT_ONCE = 2**22
"""Numbers of a bootstrap that are in memory at a time: else as many as episodes times resamples."""
Interval = tuple[float, float]


Verdict = Literal["equivalent", "different", "not shown equivalent", "too few episodes to say"]


@dataclass(frozen=True)
class PairedComparison:
    """Mean of `other - reference` over the same episodes, and what it means.

    Both claims need `least_episodes`. Equivalent: the whole 95 % interval lies within +- margin.
    That is stricter than two one-sided tests at 5 %, which need only the 90 % interval to lie
    there. Different: the whole interval lies outside of it. Otherwise it counts whether there were
    episodes enough to show that equal samplers are equivalent, see `episodes_needed`.
    """

    difference: float
    ci95: Interval
    margin: float
    verdict: Verdict
    episodes: int
    episodes_needed: int
    """For a verdict, as far as the spread of these episodes tells."""

    @property
    def equivalent(self) -> bool:
        return self.verdict == "equivalent"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "equivalent": self.equivalent}


def check_margin(margin: float) -> None:
    """Raise InputError unless `margin` can be one of scores between 0 and 1."""
    if not 0.0 < margin < 1.0:
        raise InputError(
            f"equivalence margin {margin:g} must be above 0 and below 1, for example 0.02"
        )


def least_episodes(margin: float) -> int:
    """Episodes without which nothing is claimed: 149 for a margin of 0.02.

    Scores lie between 0 and 1. Where one episode in 1 / margin is lost altogether, the mean is off
    by the margin; so many episodes see at least one of these with 95 % probability. With fewer, an
    interval of no width at all may have missed them.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-margin))


def episodes_needed(spread: float, margin: float) -> int:
    """Episodes that show equal samplers to be equivalent with 80 % probability.

    Args:
        spread: standard deviation of the differences.
    """
    z = stats.norm.ppf(1 - (1 - CONFIDENCE) / 2) + stats.norm.ppf(1 - (1 - POWER) / 2)
    return max(least_episodes(margin), math.ceil((z * spread / margin) ** 2))


def mean_interval(values: ArrayLike) -> Interval:
    """Bootstrap 95 % interval (BCa, fixed seed) of the mean of `values` (n,), n >= 1.

    Values that are all equal, one value included, give the interval of zero width at that value.
    """
    sample = _finite_sample(values)
    return _interval((sample,), np.mean, sample)


def ratio_interval(sums: ArrayLike, counts: ArrayLike) -> Interval:
    """Bootstrap 95 % interval of sum(sums) / sum(counts), both (n,), drawing episodes anew.

    That is the mean of all values of all episodes, with `counts` values in each.
    """
    total, count = _finite_sample(sums), _finite_sample(counts)
    if total.shape != count.shape or not (count > 0).all():
        raise InputError(
            f"expected one count above 0 for each of {total.size} sums, got {counts!r}"
        )
    return _interval((total, count), _ratio, total / count)


def _ratio(
    sums: NDArray[np.float64], counts: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))


def _interval(
    samples: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    values: NDArray[np.float64],
) -> Interval:
    """Bootstrap interval of a statistic whose `values` (n,) are those of each element alone."""
    if np.ptp(values) == 0.0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        low, high = _bootstrap(samples, statistic, "BCa")
    if not np.isfinite([low, high]).all():  # too little spread for BCa's corrections
        low, high = _bootstrap(samples, statistic, "percentile")
    return low, high


def _bootstrap(
    samples: tuple[NDArray[np.float64], ...],
    statistic: Callable[..., Any],
    method: Literal["BCa", "percentile"],
) -> Interval:
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, _DRAWN_AT_ONCE // samples[0].size),
        confidence_level=CONFIDENCE,
        paired=len(samples) > 1,
        method=method,
        rng=0,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def success_interval(successes: int, episodes: int) -> Interval:
    """Wilson 95 % interval of a success rate; sensible at 0 % and 100 % too."""
    if not 0 <= successes <= episodes or episodes < 1:
        raise InputError(f"{successes} successes in {episodes} episodes is not possible")
    interval = stats.binomtest(successes, episodes).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_p(won: int, lost: int) -> float:
    """Probability of so unequal a split of the pairs that differ, if neither side is better."""
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def compare_paired(reference: ArrayLike, other: ArrayLike, margin: float) -> PairedComparison:
    """Compare the scores (n,) of two samplers, episode i of both with one start and one noise."""
    first, second = _finite_sample(reference), _finite_sample(other)
    if first.shape != second.shape:
        raise InputError(f"paired scores need equal lengths, got {first.size} and {second.size}")
    check_margin(margin)
    difference = second - first
    interval = mean_interval(difference)
    n = int(difference.size)
    needed = episodes_needed(float(difference.std(ddof=1)) if n > 1 else 0.0, margin)
    return PairedComparison(
        difference=float(difference.mean()),
        ci95=interval,
        margin=margin,
        verdict=_verdict(interval, margin, n, needed),
        episodes=n,
        episodes_needed=needed,
    )


def _verdict(interval: Interval, margin: float, n: int, needed: int) -> Verdict:
    low, high = interval
    if n >= least_episodes(margin):
        if -margin < low and high < margin:
            return "equivalent"
        if high < -margin or margin < low:
            return "different"
    return "not shown equivalent" if n >= needed else "too few episodes to say"


def percentiles(values: ArrayLike) -> dict[str, float]:
    """p50, p95 and p99 of `values` (n,), n >= 1."""
    sample = _finite_sample(values)
    return {f"p{q}": float(np.percentile(sample, q)) for q in (50, 95, 99)}


def _finite_sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 1 or not np.isfinite(sample).all():
        raise InputError(f"expected one or more finite numbers, got {values!r}")
    return sample
