"""Chunks as robots ask for them: within a deadline, and several robots in one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import Document, quantiles
from benchmarks.engine.chunks import Case, Turns, summary
from benchmarks.engine.plan import Clock, counts, takes_part
from para_policy.policies.policy import ActionResult, DiffusionPolicy

DEADLINE_S = 0.08


def control_loop(
    cases: Sequence[Case], turns: Turns, reference: DiffusionPolicy, most: int, clock: Clock
) -> list[dict[str, Any]]:
    """Chunks one right after the other, each with `DEADLINE_S` from its observation on.

    A controller at 10 Hz leaves a pause between them, in which nothing is measured.
    """
    if not cases:
        return []
    for case in cases:
        # A deadline asks the table; it is measured now if calibration has not done so.
        case.policy.runtime.latency(turns.process.steps)
        _in_time(turns, case, 0)
    often = counts([DEADLINE_S] * len(cases), clock.left, most)
    exact = turns.reference(reference, max(often))
    found = []
    for case, count in zip(cases, often, strict=True):
        chunks = {turn: _in_time(turns, case, turn) for turn in range(count)}
        late = [chunk.stats.wall_s > DEADLINE_S for chunk in chunks.values()]
        found.append(
            {
                "process": turns.process.label,
                "sampler": case.spec.label,
                "engine": case.engine,
                "deadline_ms": 1e3 * DEADLINE_S,
                "within_deadline": 1.0 - float(np.mean(late)),
                **summary(chunks, exact),
            }
        )
    return found


def _in_time(turns: Turns, case: Case, turn: int) -> ActionResult:
    # By name: where there is a deadline, "auto" stands for what can stop early.
    return turns.play(case, turn, sampler=case.spec.name, deadline_s=DEADLINE_S)


def robots(
    cases: Sequence[Case], turns: Turns, batches: Sequence[int], most: int, clock: Clock
) -> list[dict[str, Any]]:
    """Robots that want a chunk at the same moment, solved in one batch, as far as the time goes.

    The samplers take turns, and each number of robots has its share of the time.
    """
    found = []
    for left, batch in zip(range(len(batches), 0, -1), batches, strict=True):
        time_each, costs = Clock(clock.left / left), []
        for case in cases:
            if clock.left:
                costs.append(min(_batch_s(case, batch, turns, i) for i in range(2)))
        often = counts(costs, time_each.left, most) if costs else []
        wall_s: list[list[float]] = [[] for _ in often]
        total = max(often, default=0)
        for turn in range(total):
            for case, count, measured in zip(cases, often, wall_s, strict=False):
                if takes_part(count, turn, total):
                    measured.append(_batch_s(case, batch, turns, turn))
        found += [
            {
                "process": turns.process.label,
                "sampler": case.spec.label,
                "engine": case.engine,
                "robots": batch,
                "batches": len(measured),
                "latency_ms": quantiles([1e3 * one for one in measured]),
                "chunks_per_s": batch / float(np.median(measured)),
            }
            for case, measured in zip(cases, wall_s, strict=False)
        ]
    return found


def _batch_s(case: Case, batch: int, turns: Turns, index: int) -> float:
    seeds = list(range(index * batch, (index + 1) * batch))
    observations = turns.batch(seeds)
    start = time.perf_counter()
    case.policy.sample(observations, sampler=case.sampler, seed=seeds, **turns.options())
    return time.perf_counter() - start


LOOP_COLUMNS = (
    *("process", "sampler", "engine", "chunks", "within the deadline", "ms p50 / p95 / p99 / max"),
    *("converged", "error p50 / p95 / max"),
)


def loop_rows(entries: Sequence[Document]) -> list[list[str]]:
    """One row of LOOP_COLUMNS per sampler."""
    return [
        [
            entry["process"],
            entry["sampler"],
            entry["engine"],
            str(entry["chunks"]),
            f"{100 * entry['within_deadline']:.1f} %",
            " / ".join(f"{value:.3g}" for value in entry["latency_ms"].values()),
            f"{100 * entry['converged_rate']:.1f} %",
            " / ".join(f"{entry['error'][key]:.1e}" for key in ("p50", "p95", "p100")),
        ]
        for entry in entries
    ]


ROBOT_COLUMNS = (
    "robots",
    "sampler",
    "engine",
    "batches",
    "ms p50 / p95 / p99",
    "chunks per second",
)


def robot_rows(entries: Sequence[Document]) -> list[list[str]]:
    """One row of ROBOT_COLUMNS per batch and sampler."""
    return [
        [
            str(entry["robots"]),
            entry["sampler"],
            entry["engine"],
            str(entry["batches"]),
            " / ".join(f"{entry['latency_ms'][key]:.3g}" for key in ("p50", "p95", "p99")),
            f"{entry['chunks_per_s']:.1f}",
        ]
        for entry in entries
    ]
