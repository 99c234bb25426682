"""What a batched network call costs: `python -m benchmarks.latency_vs_batch --help`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.common import Common, Document, circumstances, load, main
from para_policy import Denoiser
from para_policy.command_line import progress_bars
from para_policy.errors import InputError
from para_policy.policies.diffusion_policy import DiffusionPolicy
from sim import plots


@dataclass(frozen=True)
class Settings(Common):
    """Latency of the network against the rows of a call; half a minute on two cores.

    On a CPU measured with 1 thread and with one for each core, unless --threads says how many. A
    parallel sampler pays if its rounds times the latency of its rows is less than N calls of 1 row.
    """

    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 20, 32, 50, 64, 100, 128)
    """Rows of a call."""
    repeats: int = 21
    """Calls of each size; the sizes take turns."""


def measure(options: Settings) -> dict[str, Any]:
    """Median and 95th percentile of each size."""
    if options.repeats < 1 or not options.rows or min(options.rows) < 1:
        raise InputError(f"--rows {options.rows} and --repeats {options.repeats} must be 1 or more")
    subject = load(options)
    on_cpu = subject.policy.device.type == "cpu"
    everything = tuple(dict.fromkeys((1, os.cpu_count() or 1)))
    counts = everything if on_cpu and options.threads is None else (torch.get_num_threads(),)
    print(f"{options.repeats} calls of each size; threads: {', '.join(map(str, counts))}")
    curves = []
    before = torch.get_num_threads()
    with progress_bars() as progress:
        bar = progress.add_task("network calls", total=len(counts) * (options.repeats + 1))
        for threads in counts:
            torch.set_num_threads(threads)
            times: list[list[float]] = [[] for _ in options.rows]
            for turn in range(options.repeats + 1):
                for size, kept in zip(options.rows, times, strict=True):
                    seconds = _call(subject.policy, size)
                    if turn > 0:  # the first call of a size is a warm-up
                        kept.append(1e3 * seconds)
                progress.advance(bar)
            curves.append(
                {
                    "threads": threads,
                    "rows": list(options.rows),
                    "ms_p50": [float(np.median(kept)) for kept in times],
                    "ms_p95": [float(np.percentile(kept, 95)) for kept in times],
                }
            )
    torch.set_num_threads(before)
    return {
        **circumstances(options, subject.policy),
        "repeats": options.repeats,
        "curves": curves,
    }


def _call(policy: DiffusionPolicy, rows: int) -> float:
    """Seconds of one call, until its result is on the host."""
    config = policy.config
    x = torch.zeros(rows, config.horizon, config.action_dim, device=policy.device)
    t = torch.zeros(rows, dtype=torch.int64, device=policy.device)
    denoiser = Denoiser(policy.network, x.new_zeros(1, config.condition_dim))
    if policy.device.type == "cuda":
        torch.cuda.synchronize(policy.device)
    start = time.perf_counter()
    denoiser(x, t, t).cpu()
    return time.perf_counter() - start


def figure(document: Document) -> Figure:
    """Median, and the range up to the 95th percentile."""
    drawing, axes = plots.new_figure()
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
    main(Settings, measure, figure)
