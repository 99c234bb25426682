"""The table that `para-policy replay` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

Report = Mapping[str, Any]
_UNITS = {"velocity": "units/s", "acceleration": "units/s²"}


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
