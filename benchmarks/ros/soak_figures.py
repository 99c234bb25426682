"""The figures of a soak: memory over time, and histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sim import plots

_LABELS = {
    "command_gap_ms": "ms between two commands",
    "chunk_gap_ms": "ms between two chunks",
    "latency_ms": "ms from the look at the observations to the chunk",
}


def draw(document: dict[str, Any], folder: Path) -> None:
    """Write memory_*.png and one histogram per measure; the rate is part of the names."""
    rate = f"{document['rate_hz']:g}hz"
    plots.save(memory, document, folder / f"soak_{rate}_memory.png")
    for name in _LABELS:
        plots.save(
            lambda shown, name=name: histogram(shown, name),  # type: ignore[misc]
            document,
            folder / f"soak_{rate}_{name.removesuffix('_ms')}.png",
        )


def memory(document: plots.Document) -> Figure:
    """Change of the memory of each node since the start of the watch."""
    drawing, axes = plots.new_figure()
    samples = document["samples"]
    minutes = np.asarray(samples["at_s"]) / 60
    for color, (name, values) in zip(plots.COLORS, samples["memory_bytes"].items(), strict=False):
        resident = np.asarray(values) / 2**20
        label = f"{name}: {resident[0]:.0f} MiB at first"
        axes.plot(minutes, resident - resident[0], color=color, label=label)
    axes.set(xlabel="minutes", ylabel="memory since the start, MiB")
    plots.legend_above(axes)
    return drawing


def histogram(document: plots.Document, name: str) -> Figure:
    """How often; the counts are on a log scale, as it is the rare ones that matter."""
    drawing, axes = plots.new_figure()
    sample = document["samples"][name]
    axes.stairs(sample["counts"], sample["edges"], fill=True, color=plots.COLORS[0])
    axes.set(xlabel=_LABELS[name], ylabel="how often", yscale="log")
    return drawing
