"""Error against wall time, each sampler at several tolerances: `python -m benchmarks.samplers.pareto --help`.

All of them take turns on the same observations with the same noise. Samplers with fewer steps solve
another problem: their time is shown, their difference to the 100-step sample is no error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from benchmarks.common import Common, Document, circumstances, colors_of, load, main
from para_policy import comparison
from para_policy.policies.sampler_spec import split_samplers
from sim import plots


@dataclass(frozen=True)
class Options(Common):
    """Error and wall time of every sampler at several tolerances; 2 to 3 minutes on two cores."""

    observations: int = 10
    """Observations per sampler and tolerance."""
    paradigms: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """Tolerances: change of a state, in noise stds."""
    parataa: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    """Tolerances: RMS residual of a state, normalised action units."""
    parataa_options: str = ""
    """More options of ParaTAA, such as "order=10,window=20" from benchmarks.samplers.parataa_options."""
    x0: tuple[float, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
    """Tolerances: largest residual of a state, normalised action units."""
    chord: tuple[float, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
    """The same for chord; needs a calibrated checkpoint. Give none to leave a sampler out."""
    others: str = "benchmarks.peers:ddim:num_steps=10,benchmarks.peers:ddim:num_steps=16"
    """Samplers without a tolerance, separated by commas."""


FLOOR = 1e-7  # for a logarithmic axis
METHODS = ("paradigms", "parataa", "x0", "chord")


def measure(options: Options) -> dict[str, Any]:
    """A `bench` report over all tolerances; adds `curves`, the labels that belong together."""
    extra = {"parataa": options.parataa_options}
    curves: dict[str, list[str]] = {}
    for method in METHODS:
        more = extra.get(method, "")
        labels = [
            f"{method}:tolerance={value:g}{more and ',' + more}"
            for value in getattr(options, method)
        ]
        if labels:
            curves[f"{method}{more and ': ' + more.replace(',', ', ')}"] = labels
    chosen = (
        *(label for labels in curves.values() for label in labels),
        *split_samplers(options.others),
    )
    benchmark = comparison.Benchmark(chosen, observations=options.observations)
    subject = load(options)
    print(
        f"{len(chosen) + 1} samplers and tolerances take turns on {options.observations} "
        "observations, the same noise for all"
    )
    report = comparison.make_report(benchmark, subject.policy, subject.observations)
    return {**circumstances(options, subject.policy), **report, "curves": curves}


def figure(document: Document) -> Figure:
    """Median error against median wall time, with a line up to the largest error."""
    entries = document["samplers"]
    drawing, axes = plots.new_figure("Error against the time of one chunk", height=4.0)
    alone = [name for name, entry in entries.items() if entry["max_abs_error"] is None]
    colors = colors_of([*document["curves"], comparison.REFERENCE, *alone])
    for method, labels in document["curves"].items():
        points = [_point(entries[label]) for label in labels]
        times, medians, largest = zip(*points, strict=True)
        color = colors[method]
        axes.plot(times, medians, "o-", color=color, label=method, markersize=4)
        axes.vlines(times, medians, largest, color=color, linewidth=1, alpha=0.6)
    for name in (comparison.REFERENCE, *alone):
        at = entries[name]["latency_ms"]["p50"]
        axes.axvline(at, color=colors[name], linewidth=1, linestyle="--")
        words = name if name == comparison.REFERENCE else f"{name}\n(another sample)"
        axes.annotate(
            words,
            (at, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=7,
            color=colors[name],
        )
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0.7 * min(entry["latency_ms"]["p50"] for entry in entries.values()))
    axes.set_xlabel("wall time of one chunk, median, ms")
    axes.set_ylabel("largest coordinate error,\nmedian to max, normalised units")
    plots.legend_above(axes)
    return drawing


def _point(entry: Document) -> tuple[float, float, float]:
    error = entry["max_abs_error"]
    median, largest = (max(error[key], FLOOR) for key in ("median", "max"))
    return entry["latency_ms"]["p50"], median, largest


if __name__ == "__main__":
    main(Options, measure, figure)
