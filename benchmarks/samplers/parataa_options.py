"""Options of ParaTAA, the best on a checkpoint: `python -m benchmarks.samplers.parataa_options --help`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.common import Common, Document, circumstances, colors_of, load, main
from para_policy import comparison
from sim import plots

METHOD = "parataa"


@dataclass(frozen=True)
class Options(Common):
    """Try orders, histories and windows of ParaTAA; 2 to 3 minutes on two cores.

    The paper tunes them for each model, so a comparison with the defaults alone would be unfair. The
    observations are others than those that `bench` and the other benchmarks use. Found are the least
    median wall time, and the fewest rounds, which count where a batch costs as much as a row.
    """

    orders: tuple[str, ...] = ("none", "20", "10")
    """Steps that each equation integrates; none for all N."""
    histories: tuple[int, ...] = (2, 3, 4)
    """Stored iterates of Anderson acceleration."""
    windows: tuple[str, ...] = ("none", "50", "20")
    """Rows in flight; none for all N."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    observations: int = 4
    """Observations per choice."""


def measure(options: Options) -> dict[str, Any]:
    """A `bench` report over the grid; adds `best` and `fewest_rounds`, names for `para-policy bench`."""
    grid = itertools.product(options.orders, options.histories, options.windows)
    labels = [f"{METHOD}:order={k},history={m},window={w}" for k, m, w in grid]
    subject = load(options)
    benchmark = comparison.Benchmark(
        tuple(labels),
        options.scheduler,
        options.steps,
        options.observations,
        first=subject.available // 2,
    )
    print(f"{len(labels)} choices of options on {options.observations} observations")
    report = comparison.make_report(benchmark, subject.policy, subject.observations)
    entries = report["samplers"]

    def least(*keys: str) -> str:
        return min(labels, key=lambda label: [_cost(entries[label])[key] for key in keys])

    best = least("unconverged", "ms")
    fewest_rounds = least("unconverged", "rounds", "ms")
    print(f"fastest: {best}\nfewest rounds: {fewest_rounds}")
    found = {"best": best, "fewest_rounds": fewest_rounds}
    return {**circumstances(options, subject.policy), **report, **found}


def _cost(entry: Document) -> dict[str, float]:
    return {
        "unconverged": 1.0 - entry["converged_rate"],
        "ms": entry["latency_ms"]["p50"],
        "rounds": entry["rounds_mean"],
    }


def figure(document: Document) -> Figure:
    """Wall time of every choice, fastest first, with its rounds."""
    entries = {k: v for k, v in document["samplers"].items() if k.startswith(METHOD)}
    ordered = sorted(entries, key=lambda label: entries[label]["latency_ms"]["p50"])
    drawing, axes = plots.new_figure("Options of ParaTAA", height=1.2 + 0.2 * len(ordered))
    color = colors_of([METHOD])[METHOD]
    for at, label in enumerate(ordered):
        entry = entries[label]
        alpha = 0.9 if label == document["best"] else 0.45
        axes.barh(at, entry["latency_ms"]["p50"], 0.7, color=color, alpha=alpha)
        words = f" {entry['rounds_mean']:.0f} rounds"
        axes.annotate(words, (entry["latency_ms"]["p50"], at), va="center", fontsize=7)
    names = [label.partition(":")[2].replace(",", ", ") for label in ordered]
    axes.set_yticks(range(len(ordered)), names, fontsize=7)
    axes.set(ylim=(len(ordered) - 0.4, -0.6), xlabel="wall time of one chunk, median, ms")
    return drawing


if __name__ == "__main__":
    main(Options, measure, figure)
