"""Figures of a recorded run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from para_policy.extras import extra
from para_policy.files import check_output_folder, replace
from para_policy.ros.bags.records import ChunkRecord

with extra("plots", "drawing a recorded run"):
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#2b62bf", "#e2631e", "#9aa1a9"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9ebee",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
_MOST_BOUNDARIES = 60
"""More of them would be a grey area; then the chunks are told apart by their colours alone."""


def save_plots(
    records: Sequence[ChunkRecord],
    jumps: Mapping[str, Mapping[str, Sequence[float]]],
    names: Sequence[str],
    folder: Path,
    prefix: str = "",
) -> list[Path]:
    """Draw latency.png, seams.png and actions.png; returns their paths.

    Args:
        jumps: as `seam_jumps` returns them.
        names: of the action's coordinates.
        prefix: of the file names.
    """
    check_output_folder(folder)
    paths = []
    with rc_context(_STYLE):
        figures = {
            "latency": _latency(records),
            "seams": _seams(jumps),
            "actions": _actions(records, names),
        }
        for name, figure in figures.items():
            paths.append(folder / f"{prefix}{name}.png")
            FigureCanvasAgg(figure)
            replace(paths[-1], partial(figure.savefig, format="png", dpi=130))
    return paths


def _figure(title: str, height: float) -> Figure:
    figure = Figure(figsize=(9, height))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _latency(records: Sequence[ChunkRecord]) -> Figure:
    figure = _figure("Latency of each chunk", 3.6)
    over_time, histogram = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    latency = np.array([record.latency_ms for record in records])
    at_s = _seconds(records, [record.out_ns for record in records])
    whole = np.array([record.converged for record in records], dtype=bool)
    for which, color, label in ((whole, _BLUE, "converged"), (~whole, _ORANGE, "cut short")):
        if which.any():
            over_time.plot(at_s[which], latency[which], ".", color=color, label=label)
    over_time.set(xlabel="time of the run, s", ylabel="latency of a chunk, ms")
    over_time.legend(loc="lower right")
    finite = latency[np.isfinite(latency)]
    if len(finite):
        histogram.hist(finite, bins="auto", orientation="horizontal", color=_BLUE, alpha=0.6)
        over_time.set_ylim(0, 1.1 * finite.max())
        shares = {share: float(np.percentile(finite, share)) for share in (50, 95, 99)}
        text = "\n".join(f"p{share} {value:.1f} ms" for share, value in shares.items())
        histogram.text(0.97, 0.04, text, transform=histogram.transAxes, ha="right", fontsize=9)
        for value in shares.values():
            histogram.axhline(value, color=_GREY, linewidth=1)
    histogram.set(xlabel="chunks")
    return figure


def _seams(jumps: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Share of places with at most a given jump: the two curves agree where seams do not show."""
    figure = _figure("Jumps where one chunk follows another, and inside the chunks", 3.6)
    axes = np.atleast_1d(figure.subplots(1, len(jumps), sharey=True))
    for one, (name, places) in zip(axes, jumps.items(), strict=True):
        for place, color in (("seam", _ORANGE), ("inside", _BLUE)):
            found = np.sort(np.asarray(places[place], dtype=np.float64))
            values = np.concatenate([[0.0], found])
            share = 100 * np.arange(len(values)) / max(len(found), 1)
            label = "at seams" if place == "seam" else "inside chunks"
            one.step(values, share, where="post", color=color, label=f"{label} ({len(found)})")
        unit = "s" if name == "velocity" else "s²"
        one.set(xlabel=f"{name} jump, action units/{unit}", xlim=(0, None), ylim=(0, 101))
        one.legend(loc="lower right")
    axes[0].set_ylabel("places with at most this jump, %")
    return figure


def _actions(records: Sequence[ChunkRecord], names: Sequence[str]) -> Figure:
    """Each chunk as it was published, in two colours in turn, and lines where one takes over."""
    title = "Chunks as they were published; a grey line where the next one takes over"
    figure = _figure(title, 1.0 + 1.7 * len(names))
    axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
    chunks = [record for record in records if record.chunk is not None]
    taken_over = _seconds(records, [record.out_ns for record in chunks])
    starts = _seconds(records, [record.stamp_ns for record in chunks])
    for turn, color in enumerate((_BLUE, _ORANGE)):
        at_s, values = _strung(chunks[turn::2], starts[turn::2])
        for one, coordinate in zip(axes, values.T, strict=True):
            one.plot(at_s, coordinate, ".-", color=color, ms=3, lw=1)
    for one, name in zip(axes, names, strict=True):
        one.set_ylabel(name)
        for at_s in taken_over if len(taken_over) <= _MOST_BOUNDARIES else ():
            one.axvline(at_s, color=_GREY, linewidth=0.6, zorder=0)
    axes[-1].set_xlabel("time of the run, s")
    return figure


def _strung(records: Sequence[ChunkRecord], starts_s: Any) -> tuple[Any, Any]:
    """Times and actions of chunks in one array with gaps: a line for each would take minutes."""
    times, values = [np.empty(0)], []
    for record, start_s in zip(records, starts_s, strict=True):
        if record.chunk is not None:
            count, dt_s = len(record.chunk.actions), record.chunk.dt_ns / 1e9
            times.append(start_s + dt_s * np.append(np.arange(count), np.nan))
            values.append(
                np.vstack([record.chunk.actions, np.full(record.chunk.action_dim, np.nan)])
            )
    empty = np.empty((0, 0 if not values else values[0].shape[1]))
    return np.concatenate(times), np.concatenate([empty, *values])


def _seconds(records: Sequence[ChunkRecord], times_ns: Sequence[int]) -> Any:
    """Times since the observations of the first chunk."""
    first_ns = records[0].stamp_ns if records else 0
    return np.array([(time_ns - first_ns) / 1e9 for time_ns in times_ns])
