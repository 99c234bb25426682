"""Tables and words of a report, for documents and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from para_policy.inference.device import PLAIN_ENGINE

COLUMNS = (
    "sampler",
    "rounds mean / p95 / max",
    "evals mean (max)",
    "ms mean",
    "ms p50 / p95 / p99",
    "error median / p95 / p99 / max",
    "bound holds",
    "speed-up",
)
CAPTION = (
    "Error: largest coordinate difference to sequential with the same noise, in normalised action "
    "units. Speed-up: median over the observations of sequential's time divided by the sampler's "
    "on the same observation."
)


def title(report: Mapping[str, Any]) -> str:
    """One line that says what was measured on what."""
    part = "stopped early: " if report.get("partial") else ""
    return (
        f"{part}{report['scheduler']}, {report['steps']} steps, {report['observations']} observations, "
        f"{report['device']}, {report['threads']} thread(s), {report['dtype']}{_engine(report)}"
    )


def _engine(report: Mapping[str, Any]) -> str:
    """Unless it is the plain one; its precision stands before already."""
    engine = report.get("engine", PLAIN_ENGINE).removesuffix(f", {report['dtype']}")
    return "" if engine == PLAIN_ENGINE else f", engine {engine}"


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row of COLUMNS per sampler."""
    return [
        [
            name,
            f"{entry['rounds_mean']:.1f} / {entry['rounds_p95']:.0f} / {entry['rounds_max']}",
            f"{entry['evals_mean']:.0f} ({entry['evals_max']})",
            f"{entry['latency_ms']['mean']:.0f}",
            " / ".join(f"{entry['latency_ms'][key]:.0f}" for key in ("p50", "p95", "p99")),
            _error_text(entry, ("median", "p95", "p99", "max")),
            _bound_text(entry["error_bound"]),
            _speedup_text(entry),
        ]
        for name, entry in report["samplers"].items()
    ]


def table(report: Mapping[str, Any]) -> Table:
    """The main columns of the report, for the terminal."""
    caption = f"{CAPTION} {_encoders(report)}".strip()
    view = Table(title=title(report), caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    view.add_column("sampler", overflow="fold")
    for column in ("rounds (max)", "evals", "ms p50 / p99", "error median / max", "speed-up"):
        view.add_column(column, justify="right", no_wrap=True)
    for name, entry in report["samplers"].items():
        view.add_row(
            name,
            f"{entry['rounds_mean']:.1f} ({entry['rounds_max']})",
            f"{entry['evals_mean']:.0f}",
            f"{entry['latency_ms']['p50']:.0f} / {entry['latency_ms']['p99']:.0f}",
            _error_text(entry, ("median", "max")),
            f"{entry['speedup_vs_sequential']:.2f}",
        )
    return view


def _encoders(report: Mapping[str, Any]) -> str:
    if not report["cameras"]:
        return ""
    typical = np.median([entry["encode_ms"]["p50"] for entry in report["samplers"].values()])
    return f"Of each chunk the camera encoders take {typical:.0f} ms."


def _error_text(entry: Mapping[str, Any], keys: Sequence[str]) -> str:
    error = entry["max_abs_error"]
    if error is None:
        return "another sample"
    text = " / ".join(f"{error[key]:.1e}" for key in keys)
    return text if entry["converged"] else f"{text} ({_share(entry['converged_rate'])} converged)"


def _bound_text(bound: Mapping[str, Any] | None) -> str:
    if bound is None:
        return "-"
    low, high = (f"{100 * end:.0f}" for end in bound["coverage_ci95"])
    return f"{_share(bound['coverage'])} [{low}, {high}]"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _speedup_text(entry: Mapping[str, Any]) -> str:
    value, interval = entry["speedup_vs_sequential"], entry["speedup_ci95"]
    return f"{value:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")
