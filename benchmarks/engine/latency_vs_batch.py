"""Latency of a network call against its rows: `python -m benchmarks.engine.latency_vs_batch --help`."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.common import Common, Document, circumstances, load, main
from benchmarks.engine.network import network_call
from benchmarks.engine.plan import seconds_of
from benchmarks.engine.policies import parse
from para_policy.errors import InputError
from para_policy.inference import Size
from para_policy.terminal import progress_bars
from sim import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options(Common):
    """Latency of the network, as samplers call it, against the rows of a call; half a minute on two
    cores.

    On a CPU measured with 1 thread and with one for each core, unless --threads says how many. A
    parallel sampler pays if its rounds times the latency of its rows is less than N calls of 1 row.
    """

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 20, 32, 50, 64, 100, 128)
    """Rows of a call."""
    repeats: int = 21
    """Calls of each size; the sizes take turns."""
    engine: str = "eager"
    """BACKEND or BACKEND:PRECISION, prepared for just these rows."""


def measure(options: Options) -> dict[str, Any]:
    """Median and 95th percentile of each size."""
    if options.repeats < 1 or not options.rows or min(options.rows) < 1:
        raise InputError(f"--rows {options.rows} and --repeats {options.repeats} must be 1 or more")
    subject, engine = load(options), parse(options.engine)
    policy, before = subject.policy, torch.get_num_threads()
    everything = tuple(dict.fromkeys((1, os.cpu_count() or 1)))
    counts = everything if policy.device.type == "cpu" and options.threads is None else (before,)
    print(f"{options.repeats} calls of each size; threads: {', '.join(map(str, counts))}")
    curves = []
    with progress_bars() as progress:
        bar = progress.add_task("network calls", total=len(counts) * (options.repeats + 1))
        for threads in counts:
            torch.set_num_threads(threads)
            sizes = tuple(Size(size, threads) for size in sorted(set(options.rows)))
            policy.runtime = policy.runtime.on(replace(engine, sizes=sizes))
            calls = [network_call(policy, subject.some(0, 1), size) for size in options.rows]
            times: list[list[float]] = []
            for _ in range(options.repeats + 1):
                times.append([1e3 * seconds_of(call, policy.device) for call in calls])
                progress.advance(bar)
            kept = np.array(times[1:])  # the first call of a size is a warm-up
            curves.append(
                {
                    "threads": threads,
                    "rows": list(options.rows),
                    "ms_p50": np.median(kept, axis=0).tolist(),
                    "ms_p95": np.percentile(kept, 95, axis=0).tolist(),
                }
            )
    torch.set_num_threads(before)
    return {
        **circumstances(options, policy),
        "engine": engine.label,
        "repeats": options.repeats,
        "curves": curves,
    }


def figure(document: Document) -> Figure:
    """Median, and the range up to the 95th percentile."""
    drawing, axes = plots.new_figure(f"Time of a network call, {document['engine']}")
    for color, curve in zip(plots.COLORS, document["curves"], strict=False):
        label = f"{curve['threads']} thread{'s' if curve['threads'] > 1 else ''}"
        if not document["device"].startswith("cpu"):
            label = document["device"]
        axes.plot(curve["rows"], curve["ms_p50"], "o-", color=color, label=label, markersize=4)
        axes.fill_between(
            curve["rows"], curve["ms_p50"], curve["ms_p95"], color=color, alpha=0.15, linewidth=0
        )
    axes.set(xlabel="rows of a network call", ylabel="ms per call, median to p95")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    plots.legend_above(axes)
    return drawing


COLUMNS = ("threads", "rows", "ms p50", "ms p95", "ms per row", "calls of 1 row in that time")


def rows(document: Document) -> list[list[str]]:
    """One row of COLUMNS per number of threads and rows."""
    return [
        [
            str(curve["threads"]),
            str(size),
            f"{p50:.1f}",
            f"{p95:.1f}",
            f"{p50 / size:.2f}",
            f"{p50 / curve['ms_p50'][0]:.1f}" if curve["rows"][0] == 1 else "-",
        ]
        for curve in document["curves"]
        for size, p50, p95 in zip(curve["rows"], curve["ms_p50"], curve["ms_p95"], strict=True)
    ]


if __name__ == "__main__":
    main(Options, measure, figure)
