"""Tables of the engine benchmark, by name: for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks import pages
from benchmarks.common import Document
from benchmarks.engine import chunks, goals, loop, network, roofline, rounds
from benchmarks.engine.chunks import DDIM_16, DDPM_100
from para_policy.terminal import answers

Rows = Sequence[Sequence[str]]


def _image_rows(document: Document) -> Rows:
    found = document["image"]
    if found is None:
        return []
    times = (found["latency_ms"], found["encode_ms"])
    shown = (" / ".join(f"{at[key]:.3g}" for key in ("p50", "p95", "p99")) for at in times)
    names = (found["process"], found["sampler"], found["engine"], str(found["chunks"]))
    return [[*names, *shown]]


def _round_rows(document: Document) -> Rows:
    return [
        [entry["network"], entry["engine"], f"{entry['ms']:.3g}", f"{entry['times_roof']:.2f}"]
        for entry in document["rounds"]
    ]


def _large(document: Document) -> Rows:
    return [
        [large["network"], *row]
        for large in document["large"]
        for row in network.rows(large["calls"])
    ]


TABLES: Mapping[str, tuple[Sequence[str], Callable[[Document], Rows]]] = {
    "goals": (
        goals.COLUMNS,
        lambda d: goals.rows(d, "cpu" if d["device"].startswith("cpu") else "cuda"),
    ),
    "ddpm100": (
        chunks.COLUMNS,
        lambda d: chunks.rows(d["chunks"], DDPM_100.label),
    ),
    "ddim16": (chunks.COLUMNS, lambda d: chunks.rows(d["chunks"], DDIM_16.label)),
    "loop": (loop.LOOP_COLUMNS, lambda d: loop.loop_rows(d["loop"])),
    "robots": (loop.ROBOT_COLUMNS, lambda d: loop.robot_rows(d["robots"])),
    "image": (
        ("process", "sampler", "engine", "chunks", "ms p50 / p95 / p99", "of it camera encoders"),
        _image_rows,
    ),
    "network": (network.COLUMNS, lambda d: network.rows(d["network"])),
    "large": (("network", *network.COLUMNS), _large),
    "synthetic": (
        rounds.COLUMNS,
        lambda d: rounds.rows(d["synthetic"], d["cut_chunks"]),
    ),
    "rounds": (("network", "engine", "ms per round", "times the roof"), _round_rows),
    "roofline": (roofline.COLUMNS, roofline.rows),
}

_IN_SHORT = ("ddpm100", "ddim16", "loop", "robots", "goals")


def show(document: Document) -> None:
    """The main tables, for the terminal."""
    console = answers()
    for name in _IN_SHORT:
        columns, rows = TABLES[name]
        view = Table(title=name, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(columns):
            view.add_column(column, justify="right" if i > 1 else "left", overflow="fold")
        for row in rows(document):
            view.add_row(*row)
        console.print(view)
    for label, reason in {**document["left_out"], **document["samplers_left_out"]}.items():
        print(f"left out: {label}: {' '.join(reason.split())}")


def facts(document: Document) -> str:
    """What the figures mean nothing without."""
    roof = document["roofline"]
    rates = ", ".join(f"{rate:.0f} ({name})" for name, rate in roof["gflop_per_s"].items())
    lines = [
        f"Device: {document['device']}, {document['cores']} cores, {document['threads']} thread(s)",
        f"Best engine: {document['best']}; all that worked: {', '.join(document['engines'])}",
        f"Copy: {roof['gb_per_s']:.1f} GB/s; matrix product: {rates} GFLOP/s",
        *pages.provenance(document),
        f"Date: {document['date']}, {document['seconds']:.0f} s in all",
    ]
    lines += [
        f"Left out: {label}: {' '.join(reason.split())}"
        for label, reason in {**document["left_out"], **document["samplers_left_out"]}.items()
    ]
    return "\n".join(f"- {line}" for line in lines)
