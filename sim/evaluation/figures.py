"""Figures of the evaluation report, made from its JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim import plots
from sim.plots import Document
from sim.tasks.choice import task_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def color_of(document: Document, sampler: str) -> str:
    """One colour per sampler through all figures."""
    return plots.colors(document["samplers"])[sampler]


def rewards(document: Document) -> Figure:
    """Share of episodes that reach at least a given reward."""
    title = f"Rewards of {document['episodes']} {task_in(document).title} episodes"
    figure, axes = plots.new_figure(title)
    for name, result in document["samplers"].items():
        best = np.sort([episode["max_reward"] for episode in result["per_episode"]])
        share = 100 * np.arange(len(best), 0, -1) / len(best)
        # Left of the worst episode every episode counts, right of the best one none does.
        x, y = np.concatenate([[0.0], best, [best[-1]]]), np.concatenate([[100.0], share, [0.0]])
        axes.step(x, y, where="pre", color=color_of(document, name), label=name, linewidth=1.8)
    axes.set(xlabel="max reward of the episode", ylabel="episodes with at least this reward, %")
    axes.set(xlim=(0, 1.02), ylim=(0, 102))
    plots.legend_above(axes)
    return figure


def paired_rewards(document: Document) -> Figure:
    """Reward of each episode under the reference and under the other samplers."""
    figure, axes = plots.new_figure("Reward, episode by episode", width=4.6, height=4.4)
    axes.plot([0, 1], [0, 1], color="#9aa1a9", linewidth=1)
    for name, pair in document["paired"].items():
        baseline, other = (_max_rewards(document, run) for run in (pair["reference"], name))
        axes.scatter(baseline, other, s=16, alpha=0.5, color=color_of(document, name), label=name)
    axes.set(xlabel=f"max reward, {_references(document)}", ylabel="max reward, other sampler")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    plots.legend_above(axes)
    return figure


def paired_differences(document: Document) -> Figure:
    """Mean difference of each sampler from the reference, with interval and margin."""
    pairs = document["paired"]
    title = f"Mean reward against {_references(document)}, paired"
    figure, axes = plots.new_figure(title, height=1.7 + 0.45 * len(pairs))
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
    plots.legend_above(axes)
    return figure


def rounds(document: Document) -> Figure:
    """How many chunks took so many rounds."""
    figure, axes = plots.new_figure("Rounds per chunk")
    counts = {
        name: np.concatenate([episode["rounds"] for episode in result["per_episode"]])
        for name, result in document["samplers"].items()
    }
    for name, values in counts.items():
        found, how_often = np.unique(values, return_counts=True)
        label = f"{name}: mean {values.mean():.1f}"
        share = 100 * how_often / how_often.sum()
        axes.plot(found, share, "o-", color=color_of(document, name), markersize=4, label=label)
    axes.set(xlabel="rounds (batched network calls) per chunk", ylabel="chunks, %")
    axes.set_xlim(left=0)
    plots.legend_above(axes)
    return figure


def residuals(document: Document) -> Figure:
    """Residual after each round, median and 95th percentile of the chunks still in flight."""
    figure, axes = plots.new_figure("Residual in each round, median up to p95")
    for name, result in document["samplers"].items():
        curve = result["residual_per_round"]
        if not curve["p50"]:
            continue
        at, color = np.arange(1, len(curve["p50"]) + 1), color_of(document, name)
        median, high = (np.maximum(curve[key], 1e-7) for key in ("p50", "p95"))
        axes.plot(at, median, "o-", color=color, markersize=3, label=name)
        axes.fill_between(at, median, high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="round", ylabel="largest residual, normalised units", yscale="log")
    plots.legend_above(axes)
    return figure


def latencies(document: Document) -> Figure:
    """Latency of one robot: bars to the median, marks at p95 and p99."""
    measured = {
        name: result["latency_ms"]
        for name, result in document["samplers"].items()
        if result["latency_ms"]["p50"] is not None
    }
    figure, axes = plots.new_figure("Latency of one robot", height=1.7 + 0.45 * len(measured))
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


def _references(document: Document) -> str:
    """The one sampler that all others are compared with, or a word for several."""
    names = {pair["reference"] for pair in document["paired"].values()}
    return names.pop() if len(names) == 1 else "reference"


def _max_rewards(document: Document, sampler: str) -> list[float]:
    return [episode["max_reward"] for episode in document["samplers"][sampler]["per_episode"]]
