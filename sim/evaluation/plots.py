"""The figures of the evaluation report, made from its JSON document."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from para_policy.extras import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
COLORS = (
    *("#2b62bf", "#e2631e", "#2f8f5b", "#8c56bd", "#b88a00"),
    *("#5a6673", "#c2407e", "#2aa1b3", "#7a4b2a", "#9bb02f"),
)
LONG_LABEL = 30
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": "#9aa1a9",
    "axes.labelcolor": "#26292e",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ebee",
    "xtick.color": "#5a6068",
    "ytick.color": "#5a6068",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def pyplot() -> Any:
    """matplotlib, which draws into files, without a display."""
    with extra("plots", "drawing"):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot
    return matplotlib.pyplot


def color_of(document: Document, sampler: str) -> str:
    """One colour per sampler through all figures."""
    return COLORS[list(document["samplers"]).index(sampler) % len(COLORS)]


def rewards(document: Document) -> Figure:
    """Share of episodes that reach at least a given reward."""
    figure, axes = new_figure()
    for name, result in document["samplers"].items():
        best = np.sort([episode["max_reward"] for episode in result["per_episode"]])
        share = 100 * np.arange(len(best), 0, -1) / len(best)
        # Left of the worst episode every episode counts, right of the best one none does.
        x, y = np.concatenate([[0.0], best, [best[-1]]]), np.concatenate([[100.0], share, [0.0]])
        axes.step(x, y, where="pre", color=color_of(document, name), label=name, linewidth=1.8)
    axes.set(xlabel="max reward of the episode", ylabel="episodes with at least this reward, %")
    axes.set(xlim=(0, 1.02), ylim=(0, 102))
    legend_above(axes)
    return figure


def paired_rewards(document: Document) -> Figure:
    """Reward of each episode under the reference and under the other samplers."""
    figure, axes = new_figure(width=4.6, height=4.2)
    axes.plot([0, 1], [0, 1], color="#9aa1a9", linewidth=1)
    for name, pair in document["paired"].items():
        baseline, other = (_max_rewards(document, run) for run in (pair["reference"], name))
        axes.scatter(baseline, other, s=16, alpha=0.5, color=color_of(document, name), label=name)
    axes.set(xlabel=f"max reward, {_references(document)}", ylabel="max reward, other sampler")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    legend_above(axes)
    return figure


def paired_differences(document: Document) -> Figure:
    """Mean difference of each sampler from the reference, with interval and margin."""
    pairs = document["paired"]
    figure, axes = new_figure(height=1.5 + 0.45 * len(pairs))
    margin = max(pair["margin"] for pair in pairs.values())
    axes.axvspan(-margin, margin, color="#e4f1e6", label=f"margin ±{margin:g}")
    axes.axvline(0, color="#9aa1a9", linewidth=1)
    for row, (name, pair) in enumerate(pairs.items()):
        low, high = pair["ci95"]
        color = color_of(document, name)
        axes.plot([low, high], [row, row], color=color, linewidth=2.5, solid_capstyle="round")
        axes.plot(pair["difference"], row, "o", color=color)
    limits = [abs(bound) for pair in pairs.values() for bound in pair["ci95"]]
    axes.set_xlim(-1.3 * max(margin, *limits), 1.3 * max(margin, *limits))
    axes.set_yticks(range(len(pairs)), list(pairs))
    axes.set(ylim=(len(pairs) - 0.4, -0.6))
    axes.set_xlabel(f"mean max reward minus {_references(document)}, 95 % interval")
    legend_above(axes)
    return figure


def rounds(document: Document) -> Figure:
    """Histogram of the rounds per chunk."""
    figure, axes = new_figure()
    counts = {
        name: np.concatenate([episode["rounds"] for episode in result["per_episode"]])
        for name, result in document["samplers"].items()
    }
    for name, values in counts.items():
        found, how_often = np.unique(values, return_counts=True)
        label = f"{name}: mean {values.mean():.1f}"
        share = 100 * how_often / how_often.sum()
        axes.bar(found, share, 1.0, color=color_of(document, name), alpha=0.75, label=label)
    axes.set(xlabel="rounds (batched network calls) per chunk", ylabel="chunks, %")
    axes.set_xlim(left=0)
    legend_above(axes)
    return figure


def residuals(document: Document) -> Figure:
    """Residual after each round, median and 95th percentile of the chunks still in flight."""
    figure, axes = new_figure()
    for name, result in document["samplers"].items():
        curve = result["residual_per_round"]
        if not curve["p50"]:
            continue
        at, color = np.arange(1, len(curve["p50"]) + 1), color_of(document, name)
        median, high = (np.maximum(curve[key], 1e-7) for key in ("p50", "p95"))
        axes.plot(at, median, color=color, linewidth=1.8, label=f"{name}, median")
        axes.plot(at, high, color=color, linewidth=1, linestyle="--", label=f"{name}, p95")
    axes.set(xlabel="round", ylabel="largest defect, normalised units", yscale="log")
    legend_above(axes)
    return figure


def latencies(document: Document) -> Figure:
    """Latency of one robot: bars to the median, marks at p95 and p99."""
    measured = {
        name: result["latency_ms"]
        for name, result in document["samplers"].items()
        if result["latency_ms"]["p50"] is not None
    }
    figure, axes = new_figure(height=1.5 + 0.45 * len(measured))
    for row, (name, latency) in enumerate(measured.items()):
        color = color_of(document, name)
        axes.barh(row, latency["p50"], 0.55, color=color, alpha=0.75)
        axes.plot([latency["p50"], latency["p99"]], [row, row], color=color, linewidth=1)
        axes.plot(latency["p95"], row, "|", color=color, markersize=11, markeredgewidth=2)
        axes.plot(latency["p99"], row, "D", color=color, markersize=4)
    axes.set_yticks(range(len(measured)), list(measured))
    axes.set(
        ylim=(len(measured) - 0.4, -0.6), xlabel="ms per chunk: bar p50, line p95, diamond p99"
    )
    axes.set_xlim(left=0)
    return figure


def render(plot: Callable[[Document], Figure], document: Document) -> str:
    """Draw one of the figures above as an SVG data URI, which an HTML file can hold."""
    buffer, plt = io.BytesIO(), pyplot()
    with plt.rc_context(STYLE):
        figure = plot(document)
        figure.savefig(buffer, format="svg")
        plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def save(plot: Callable[[Document], Figure], document: Document, path: Path) -> None:
    """Draw one of the figures above into a file."""
    plt = pyplot()
    with plt.rc_context(STYLE):
        figure = plot(document)
        figure.savefig(path, dpi=130, bbox_inches="tight")
        plt.close(figure)


def new_figure(width: float = 6.0, height: float = 3.3) -> tuple[Figure, Axes]:
    figure, axes = pyplot().subplots(figsize=(width, height))
    return figure, axes


def legend_above(axes: Axes) -> None:
    # Above the plot, where no data can hide behind it; more lines make the figure higher.
    figure, labels = axes.get_figure(root=True), axes.get_legend_handles_labels()[1]
    # Two long labels side by side are wider than the plot, which would shrink.
    columns = 1 if any(len(label) > LONG_LABEL for label in labels) else 2
    lines = -(-len(labels) // columns)
    if figure is not None:
        figure.set_figheight(figure.get_figheight() + 0.2 * (lines - 1))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns)


def _references(document: Document) -> str:
    """The one sampler that all others are compared with, or a word for several."""
    names = {pair["reference"] for pair in document["paired"].values()}
    return names.pop() if len(names) == 1 else "reference"


def _max_rewards(document: Document, sampler: str) -> list[float]:
    return [episode["max_reward"] for episode in document["samplers"][sampler]["per_episode"]]
