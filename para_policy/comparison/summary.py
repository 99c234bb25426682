"""Numbers of a report, from chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from para_policy.policies.policy import ActionResult

_RESAMPLES = 9999
_CONFIDENCE = 0.95
_LEAST_OF_A_MEDIAN = 6  # 2 * 0.5**6 < 1 - _CONFIDENCE


def summarise(
    chunks: Sequence[ActionResult], reference: Sequence[ActionResult], *, solves: bool
) -> dict[str, Any]:
    """The entries of one sampler in the `bench` JSON contract.

    Args:
        reference: chunks of the same observations and noise by `sequential`.
        solves: whether the difference to them is an error; False for another sample.
    """
    rounds = np.array([chunk.stats.rounds for chunk in chunks])
    evals = np.array([chunk.stats.evals for chunk in chunks])
    wall_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in chunks])
    encode_ms = 1e3 * np.array([chunk.stats.encode_s for chunk in chunks])
    reference_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in reference])
    ratio = reference_ms / wall_ms
    converged = [bool(chunk.stats.converged) for chunk in chunks]
    return {
        "rounds_mean": float(rounds.mean()),
        "rounds_p95": float(np.percentile(rounds, 95)),
        "rounds_max": int(rounds.max()),
        "evals_mean": float(evals.mean()),
        "evals_max": int(evals.max()),
        "latency_ms": {
            "mean": float(wall_ms.mean()),
            **{f"p{q}": float(np.percentile(wall_ms, q)) for q in (50, 95, 99)},
        },
        "encode_ms": {f"p{q}": float(np.percentile(encode_ms, q)) for q in (50, 95)},
        "max_abs_error": _errors(chunks, reference) if solves else None,
        "error_bound": coverage(chunks, reference) if solves and chunks is not reference else None,
        "speedup_vs_sequential": float(np.median(ratio)),
        "speedup_ci95": median_interval(ratio),
        "converged": all(converged),
        "converged_rate": float(np.mean(converged)),
        "residual_per_round": _residual_per_round(chunks),
    }


def _errors(chunks: Sequence[ActionResult], reference: Sequence[ActionResult]) -> dict[str, float]:
    errors = [
        np.abs(chunk.sample - exact.sample).max()
        for chunk, exact in zip(chunks, reference, strict=True)
    ]
    return {
        "median": float(np.median(errors)),
        "p95": float(np.percentile(errors, 95)),
        "p99": float(np.percentile(errors, 99)),
        "max": float(np.max(errors)),
    }


def coverage(
    chunks: Sequence[ActionResult], reference: Sequence[ActionResult]
) -> dict[str, Any] | None:
    """How often no coordinate of a chunk was further off than its bound, physical units."""
    held, bounds = [], []
    for chunk, exact in zip(chunks, reference, strict=True):
        bound = chunk.stats.error_bound
        if np.isfinite(bound).all():
            error = np.abs(chunk.prediction - exact.prediction).max(axis=0)
            held.append(bool((error <= bound).all()))
            bounds.append(bound)
    if not held:
        return None
    interval = stats.binomtest(sum(held), len(held)).proportion_ci(_CONFIDENCE, method="wilson")
    return {
        "coverage": float(np.mean(held)),
        "coverage_ci95": [float(interval.low), float(interval.high)],
        "observations": len(held),
        "median": np.median(bounds, axis=0).tolist(),
    }


def median_interval(values: NDArray[np.float64]) -> list[float] | None:
    """Bootstrap 95 % interval of the median, the observations drawn anew.

    None for fewer than six values: the median lies outside of all of five with 6 % probability.
    """
    if len(values) < _LEAST_OF_A_MEDIAN:
        return None
    result = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=0,
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def _residual_per_round(chunks: Sequence[ActionResult]) -> dict[str, list[float]]:
    """Median and 95th percentile after each round, over the `in_flight` chunks that ran it.

    Empty for samplers without residuals: sequential ones, and those that do not measure them.
    """
    curves = [np.asarray(chunk.stats.residuals, dtype=float) for chunk in chunks]
    if not any((curve > 0).any() for curve in curves):
        return {"p50": [], "p95": [], "in_flight": []}
    columns = [
        [curve[k] for curve in curves if len(curve) > k and np.isfinite(curve[k])]
        for k in range(max(map(len, curves)))
    ]
    columns = [column for column in columns if column]
    return {
        "p50": [float(np.median(column)) for column in columns],
        "p95": [float(np.percentile(column, 95)) for column in columns],
        "in_flight": [len(column) for column in columns],
    }
