"""Numbers of the evaluation JSON, from episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sim.evaluation.seams import seam_metrics
from sim.evaluation.statistics import compare_paired, mean_interval, percentiles, success_interval
from sim.evaluation.variants import OWN_SAMPLE, Variant, paired_with, reference_of
from sim.tasks.episode import Chunk, Episode

LARGE_ERROR = 1e-2
Runs = Mapping[str, Sequence[Episode]]


def summarize(
    runs: Runs, latencies_ms: Mapping[str, Sequence[float]], margin: float
) -> dict[str, Any]:
    """The parts `samplers` and `paired` of the JSON. Episode i of all samplers has one seed."""
    names = list(runs)
    reference, pairs = reference_of(names), paired_with(names)
    summaries = {}
    for name, episodes in runs.items():
        summaries[name] = {
            **_outcomes(episodes),
            **_effort(episodes),
            "latency_ms": _percentiles_or_null(latencies_ms[name]),
            "latency_chunks": len(latencies_ms[name]),
            "first_chunk_error": _first_chunk_error(runs, name, pairs.get(name, reference)),
            **_errors(episodes),
            "seams": seam_metrics(episodes),
            "per_episode": [_per_episode(episode) for episode in episodes],
        }
    paired = {
        name: {
            "reference": other,
            **compare_paired(_max_rewards(runs[other]), _max_rewards(runs[name]), margin).to_json(),
        }
        for name, other in pairs.items()
    }
    return {"reference": reference, "samplers": summaries, "paired": paired}


def first_chunk_error(reference: Sequence[Episode], other: Sequence[Episode]) -> dict[str, float]:
    """Largest coordinate error per first chunk: median, p95 and max over the episodes.

    In normalised action units (-1 to 1 spans the demonstrations), and the maximum in the unit of the
    actions too.
    """
    normalised = [
        np.abs(a.first_sample - b.first_sample).max() for a, b in zip(reference, other, strict=True)
    ]
    physical = [
        np.abs(a.chunks[0].prediction - b.chunks[0].prediction).max()
        for a, b in zip(reference, other, strict=True)
    ]
    return {
        "median": float(np.median(normalised)),
        "p95": float(np.percentile(normalised, 95)),
        "max": float(np.max(normalised)),
        f"max_{reference[0].task.unit}": float(np.max(physical)),
    }


def _first_chunk_error(runs: Runs, name: str, reference: str) -> dict[str, float] | None:
    one, other = Variant.parse(name), Variant.parse(reference)
    if {one.sampler, other.sampler} & set(OWN_SAMPLE) or one.control.redraw != other.control.redraw:
        return None  # another sample by design
    return first_chunk_error(runs[reference], runs[name])


def _max_rewards(episodes: Sequence[Episode]) -> list[float]:
    return [episode.max_reward for episode in episodes]


def _outcomes(episodes: Sequence[Episode]) -> dict[str, Any]:
    rewards = _max_rewards(episodes)
    final = [episode.final_score for episode in episodes]
    name = f"mean_final_{episodes[0].task.score.name}"
    successes = sum(episode.success for episode in episodes)
    return {
        "mean_max_reward": float(np.mean(rewards)),
        "mean_max_reward_ci95": mean_interval(rewards),
        "success_rate": successes / len(episodes),
        "success_rate_ci95": success_interval(successes, len(episodes)),
        name: float(np.mean(final)),
        f"{name}_ci95": mean_interval(final),
        "steps_mean": float(np.mean([episode.steps for episode in episodes])),
    }


def _effort(episodes: Sequence[Episode]) -> dict[str, Any]:
    chunks = [chunk for episode in episodes for chunk in episode.chunks]
    rounds = [chunk.rounds for chunk in chunks]
    return {
        "chunks": len(chunks),
        "rounds": {
            "mean": float(np.mean(rounds)),
            "p95": float(np.percentile(rounds, 95)),
            "max": max(rounds),
        },
        "rounds_mean": float(np.mean(rounds)),
        "rounds_max": max(rounds),
        "evals_mean": float(np.mean([chunk.evals for chunk in chunks])),
        "converged_rate": float(np.mean([chunk.converged for chunk in chunks])),
        "batched_call_ms": percentiles([1e3 * chunk.batch_wall_s for chunk in chunks]),
        "residual_per_round": _residual_per_round(chunks),
    }


def _errors(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Error of all chunks in closed loop; None where it was not measured.

    Largest coordinate difference to `sequential` with the same observation and noise, normalised
    action units, and the share of chunks where it is above LARGE_ERROR.
    """
    errors = [
        chunk.error for episode in episodes for chunk in episode.chunks if chunk.error is not None
    ]
    if not errors:
        return {"max_abs_error": None, "error_above_1e-2_rate": None}
    return {
        "max_abs_error": {
            "median": float(np.median(errors)),
            "p95": float(np.percentile(errors, 95)),
            "p99": float(np.percentile(errors, 99)),
            "max": max(errors),
        },
        "error_above_1e-2_rate": float(np.mean(np.array(errors) > LARGE_ERROR)),
    }


def _residual_per_round(chunks: Sequence[Chunk]) -> dict[str, list[float]]:
    """Median and 95th percentile after each round, over the `in_flight` chunks that ran it."""
    n_rounds = max(len(chunk.residuals) for chunk in chunks)
    columns = [
        [chunk.residuals[k] for chunk in chunks if len(chunk.residuals) > k]
        for k in range(n_rounds)
    ]
    return {
        "p50": [float(np.median(column)) for column in columns],
        "p95": [float(np.percentile(column, 95)) for column in columns],
        "in_flight": [len(column) for column in columns],
    }


def _percentiles_or_null(values: Sequence[float]) -> dict[str, float | None]:
    return dict(percentiles(values)) if values else {"p50": None, "p95": None, "p99": None}


def _per_episode(episode: Episode) -> dict[str, Any]:
    return {
        "seed": episode.seed,
        "start_state": episode.task.start_state(episode.seed).tolist(),
        **episode.outcome(),
        "rounds": [chunk.rounds for chunk in episode.chunks],
        "evals": [chunk.evals for chunk in episode.chunks],
        "residual": [chunk.residual for chunk in episode.chunks],
        "converged": [chunk.converged for chunk in episode.chunks],
        "error": [chunk.error for chunk in episode.chunks],
        "batched_call_ms": [round(1e3 * chunk.batch_wall_s, 3) for chunk in episode.chunks],
        "batch_size": [chunk.batch_size for chunk in episode.chunks],
    }
