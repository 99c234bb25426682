"""Rounds of a network with random weights: real chunks, cut after as many as a trained one needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import Document, quantiles
from benchmarks.engine.chunks import Process
from benchmarks.engine.plan import Clock, counts, seconds_of
from benchmarks.engine.synthetic import random_observation
from para_policy.comparison import REFERENCE
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers import FixedPoint, Prior, Sampler, Sequential

SAMPLERS = (REFERENCE, "chord")
_MOST = 200
_FEW, _MANY = 2, 6
CALLS_OF_MEASURE_ROUND = _FEW + _MANY
"""Network calls of `measure_round` in each repeat; it begins with one more."""


def cut(trained: DiffusionPolicy, sampler: str, process: Process, rounds: int) -> Sampler:
    """A sampler of the trained policy that stops after so many rounds, with no guess of its own."""
    if sampler == REFERENCE:
        return Sequential()
    return _bare(trained, sampler, process, max_rounds=rounds)


def whole_round(trained: DiffusionPolicy, process: Process, rounds: int) -> Sampler:
    """`chord` that stops after so many rounds, each with nearly all steps as rows.

    With tolerance 0 only a row or two become final in each round.
    """
    options: dict[str, Any] = {"tolerance": 0, "window": None, "lookahead": None}
    return _bare(trained, "chord", process, **options, max_rounds=rounds)


def _bare(trained: DiffusionPolicy, name: str, process: Process, **options: Any) -> FixedPoint:
    made: Any = trained.sampler(name, scheduler=process.scheduler, steps=process.steps, **options)
    # Without the calibrated guess, which needs its condition.
    sampler: FixedPoint = replace(made, guess=Prior(), certificate=None)
    return sampler


def measure_cut_chunks(
    network: str,
    policy: DiffusionPolicy,
    engine: str,
    trained: DiffusionPolicy,
    expected: Sequence[Document],
    clock: Clock,
) -> list[dict[str, Any]]:
    """Time chunks of a random policy, those that fit into the time.

    No state of a random network is accepted early, so each round has at least as many rows as with
    the trained one.

    Args:
        expected: entries of `synthetic_chunks` for this network.
    """
    wanted = [
        entry for entry in expected if entry["engine"] == engine and entry["sampler"] in SAMPLERS
    ]
    often = counts([entry["chunk_ms"] / 1e3 for entry in wanted], clock.left, _MOST)
    found = []
    for entry, count in zip(wanted, often, strict=True):
        if (count + 1) * entry["chunk_ms"] / 1e3 > clock.left:
            continue
        scheduler, steps = entry["process"].split()
        process, rounds = Process(scheduler, int(steps)), int(np.ceil(entry["rounds_mean"]))
        solver = cut(trained, entry["sampler"], process, rounds)
        times = _chunks_s(policy, solver, process, count)
        found.append(
            {
                **{key: entry[key] for key in ("network", "engine", "process", "sampler")},
                "rounds": rounds,
                "chunks": count,
                "latency_ms": quantiles([1e3 * one for one in times]),
            }
        )
    return found


def measure_round(
    policy: DiffusionPolicy, trained: DiffusionPolicy, process: Process, repeats: int
) -> float:
    """Seconds of one round of nearly all N rows: the slope between chunks of few and many rounds."""
    few, many = (
        float(np.median(_chunks_s(policy, whole_round(trained, process, count), process, repeats)))
        for count in (_FEW, _MANY)
    )
    return (many - few) / (_MANY - _FEW)


def _chunks_s(
    policy: DiffusionPolicy, sampler: Sampler, process: Process, repeats: int
) -> list[float]:
    """After one chunk as a warm-up."""
    obs = {name: value[0] for name, value in random_observation(policy.config).items()}

    def chunk() -> None:
        policy.sample(obs, sampler=sampler, scheduler=process.scheduler, steps=process.steps)

    chunk()
    return [seconds_of(chunk, policy.device) for _ in range(repeats)]


COLUMNS = (
    *("network", "engine", "process", "sampler", "rounds mean", "rows mean"),
    *("in calls, ms", "outside, ms", "chunk, ms", "cut chunk, ms p50 (n)"),
)


def rows(synthetic: Sequence[Document], chunks: Sequence[Document]) -> list[list[str]]:
    """One row of COLUMNS per synthetic chunk, beside the real one that was cut."""
    keys = ("network", "engine", "process", "sampler")
    real: Mapping[tuple[str, ...], Document] = {
        tuple(entry[key] for key in keys): entry for entry in chunks
    }
    shown = []
    for entry in synthetic:
        measured = real.get(tuple(entry[key] for key in keys))
        shown.append(
            [
                *(entry[key] for key in keys),
                f"{entry['rounds_mean']:.1f}",
                f"{entry['evals_mean']:.0f}",
                *(f"{entry[key]:.3g}" for key in ("network_ms", "solver_ms", "chunk_ms")),
                "-"
                if measured is None
                else f"{measured['latency_ms']['p50']:.3g} ({measured['chunks']})",
            ]
        )
    return shown
