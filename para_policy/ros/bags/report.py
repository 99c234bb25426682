"""Report of one robot's run: as it goes into JSON, and as the table that `para-policy replay` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from para_policy.execution import seams
from para_policy.execution.coordinates import Coordinates
from para_policy.ros.bags.comparison import Outcome, difference
from para_policy.ros.bags.records import ChunkRecord, Run

Report = Mapping[str, Any]
_UNITS = {"velocity": "units/s", "acceleration": "units/s²"}


def summarise(run: Run, outcomes: Sequence[Outcome], coordinates: Coordinates) -> dict[str, Any]:
    """The report of one robot's run, as it goes into JSON; see docs/recording.md.

    Args:
        coordinates: of the actions.
    """
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    records = [outcome.record for outcome in outcomes]
    differing = [o for o in outcomes if o.verdict == "different"]
    return {
        "node": run.node,
        "chunks": len(run.chunks),
        "without_info": run.without_info,
        "episodes": sum(record.index == 0 for record in records) or min(len(records), 1),
        "replayed": sum(not np.isnan(outcome.latency_s) for outcome in outcomes),
        "equal": verdicts["equal"],
        "close": verdicts["close"],
        "different": verdicts["different"],
        "not_comparable": verdicts["not comparable"],
        "largest_difference": max((o.difference for o in differing), default=0.0),
        "latency_ms": percentiles([record.latency_ms for record in records]),
        "replay_latency_ms": percentiles([1e3 * outcome.latency_s for outcome in outcomes]),
        "rounds_mean": _mean([record.rounds for record in records]),
        "reasons": dict(Counter(o.reason for o in outcomes if o.reason)),
        "seams": seam_jumps(records, coordinates),
        "other": _summarise_other(outcomes),
        "per_chunk": [_describe(outcome) for outcome in outcomes],
    }


def seam_jumps(records: Sequence[ChunkRecord], coordinates: Coordinates) -> dict[str, Any]:
    """Jumps of velocity and acceleration as executed, at the seams and inside chunks."""
    found: dict[str, Any] = {}
    for name, order in (("velocity", seams.VELOCITY), ("acceleration", seams.ACCELERATION)):
        parts = [
            seams.jumps(chunks, order, dt_ns / 1e9, coordinates)
            for dt_ns, chunks in _played(records)
            if chunks
        ]
        found[name] = {
            "seam": [float(x) for at_seams, _ in parts for x in at_seams],
            "inside": [float(x) for _, inside in parts for x in inside],
        }
    return found


def _played(records: Sequence[ChunkRecord]) -> list[tuple[int, list[NDArray[Any]]]]:
    """Runs of executed chunks with their dt; an episode ends a run."""
    episodes: list[list[ChunkRecord]] = []
    for record in records:
        if record.chunk is None:
            continue
        last = episodes[-1][-1].chunk if episodes else None
        if last is None or record.index == 0 or last.dt_ns != record.chunk.dt_ns:
            episodes.append([])
        episodes[-1].append(record)
    return [
        (part[0].chunk.dt_ns, run)
        for part in episodes
        if part[0].chunk is not None
        for run in seams.executed([(r.chunk, r.out_ns) for r in part if r.chunk is not None])
    ]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return dict.fromkeys(("p50", "p95", "p99"))
    return {f"p{p}": float(np.percentile(finite, p)) for p in (50, 95, 99)}


def _summarise_other(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    solved = [o.other for o in outcomes if o.other is not None and o.other.chunk is not None]
    pairs = [(o.record, o.other) for o in outcomes if o.other is not None]
    differences = [d.ravel() for pair in pairs if (d := difference(*pair)) is not None]
    if not differences:
        return None
    return {
        "chunks": len(differences),
        "largest_difference": float(np.concatenate(differences).max()),
        "p95_difference": float(np.percentile(np.concatenate(differences), 95)),
        "rounds_mean": _mean([s.rounds for s in solved]),
        "latency_ms": percentiles([1e3 * s.latency_s for s in solved]),
    }


def _describe(outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    return {
        "chunk": record.index,
        "stamp_ns": record.stamp_ns,
        "verdict": outcome.verdict,
        "difference": None if np.isnan(outcome.difference) else outcome.difference,
        "reason": outcome.reason,
        "latency_ms": record.latency_ms,
        "rounds": record.rounds,
        "replayed_rounds": outcome.rounds,
        "other_difference": outcome.other_difference,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def table(report: Report) -> Table:
    """One column of names and one of what was found, of one robot's run."""
    made = Table("", report["node"], box=SIMPLE_HEAD, title_justify="left")
    for name, text in [*_outcome(report), *_numbers(report)]:
        made.add_row(name, text)
    return made


def _outcome(report: Report) -> Iterator[tuple[str, str]]:
    yield "chunks", f"{report['chunks']} in {report['episodes']} episode(s)"
    yield "replayed", str(report["replayed"])
    yield "equal to the bit", str(report["equal"])
    if report["close"]:
        yield "close (batches)", str(report["close"])
    if report["different"]:
        largest = report["largest_difference"]
        yield "different", f"{report['different']}, by up to {_number(largest)}"
    if report["not_comparable"]:
        yield "not comparable", str(report["not_comparable"])
    for reason, count in report["reasons"].items():
        yield f"  {count} x", reason


def _numbers(report: Report) -> Iterator[tuple[str, str]]:
    yield "recorded latency, ms", _percentiles(report["latency_ms"])
    yield "recorded rounds, mean", _number(report["rounds_mean"])
    for name, jumps in report["seams"].items():
        at_seams, inside = _median(jumps["seam"]), _median(jumps["inside"])
        found = f"{at_seams} at seams, {inside} inside chunks (median)"
        yield f"{name} jump, {_UNITS[name]}", found
    if other := report["other"]:
        largest, most = other["largest_difference"], other["p95_difference"]
        yield "other sampler", report["other_name"]
        yield "  difference of actions", f"{_number(largest)} at most, p95 {_number(most)}"
        yield "  rounds, mean", _number(other["rounds_mean"])
        yield "  latency, ms", _percentiles(other["latency_ms"])
        yield "  recorded sampler here, ms", _percentiles(report["replay_latency_ms"])


def _percentiles(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in values.items())


def _median(values: list[float]) -> str:
    return _number(float(np.median(values)) if values else None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
