"""Residuals after each round of every sampler: `python -m benchmarks.samplers.residuals --help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import Common, Document, circumstances, colors_of, load, main
from para_policy import comparison
from para_policy.policies.sampler_spec import split_samplers
from sim import plots


@dataclass(frozen=True)
class Options(Common):
    """Largest residual in the window after each round; about a minute on two cores.

    Only chunks that ran a round count for it. A sampler with a short window sees few states at
    once, so its early residuals say little about the end of the trajectory.
    """

    samplers: str = "paradigms,parataa,x0,chord"
    """As for `para-policy bench`."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    observations: int = 16
    """Observations per sampler."""


def measure(options: Options) -> dict[str, Any]:
    """A `bench` report, which holds the curves as `residual_per_round`."""
    benchmark = comparison.Benchmark(
        split_samplers(options.samplers),
        options.scheduler,
        options.steps,
        options.observations,
    )
    subject = load(options)
    print(f"residuals after each round, {options.observations} observations, same noise for all")
    report = comparison.make_report(benchmark, subject.policy, subject.observations)
    return {**circumstances(options, subject.policy), **report}


def figure(document: Document) -> Figure:
    """Median over the chunks in flight, and the range up to the 95th percentile."""
    drawing, axes = plots.new_figure("Residual in each round, median up to p95")
    colors = colors_of(document["samplers"])
    for label, entry in document["samplers"].items():
        curve = entry["residual_per_round"]
        if not curve["p50"]:
            continue
        rounds, color = np.arange(1, len(curve["p50"]) + 1), colors[label]
        median, high = (np.maximum(curve[key], 1e-7) for key in ("p50", "p95"))
        axes.plot(rounds, median, "o-", color=color, label=label, markersize=3)
        axes.fill_between(rounds, median, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="round (batched network call)", yscale="log")
    axes.set_ylabel("largest residual in the window,\nnormalised units")
    plots.legend_above(axes)
    return drawing


if __name__ == "__main__":
    main(Options, measure, figure)
