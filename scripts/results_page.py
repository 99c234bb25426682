"""Filler of docs/results.md and docs/aloha.md from the JSON files of `scripts/results.sh`.

The text of the page, and where its figures stand, is in the page itself. A place whose files are not
there keeps what it shows: a part can be measured again alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.engine import latency_vs_batch
from benchmarks.samplers import (
    error_bounds,
    error_per_round,
    parataa_options,
    pareto,
    residuals,
    rounds_vs_steps,
)
from para_policy import comparison
from para_policy.errors import InputError
from para_policy.files import write_text
from para_policy.policies.sampler_spec import AUTO
from para_policy.terminal import run
from para_policy.training.pcm.trajectories import Trajectories
from sim import report
from sim.evaluation import figures, tables
from sim.plots import Document

COST = ("run", "objective", "rank", "trajectories", "steps", "minutes", "left first", "left last")

IN_EVALUATION = (
    figures.rewards,
    figures.paired_differences,
    figures.paired_rewards,
    figures.rounds,
    figures.residuals,
)


class Results:
    """What was measured: the files of a folder.

    Args:
        folder: with the JSON files.
        images: where the plots go.
        prefix: how their names begin.
    """

    def __init__(self, folder: Path, images: Path, prefix: str = "") -> None:
        self._folder, self._images, self._prefix = folder, images, prefix

    def read(self, name: str) -> dict[str, Any]:
        """A document; FileNotFoundError if it was not measured."""
        document: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text())
        return document

    def read_all(self, pattern: str) -> list[dict[str, Any]]:
        """Documents whose names fit a pattern, by name; FileNotFoundError if none was measured."""
        names = sorted(path.stem for path in self._folder.glob(f"{pattern}.json"))
        if not names:
            raise FileNotFoundError(f"no {pattern} in {self._folder}")
        return [self.read(name) for name in names]

    def picture(self, plot: Callable[[Any], Figure], document: Document, name: str) -> str:
        """A plot, saved."""
        return pages.picture(plot, document, self._images, self._prefix + name)

    def training_runs(self) -> list[Path]:
        """The curves of `scripts/distill.sh`; FileNotFoundError if there are none."""
        found = sorted(self._folder.parent.glob("pcm/*/metrics.jsonl"))
        if not found:
            raise FileNotFoundError(f"no training runs in {self._folder.parent / 'pcm'}")
        return found


Part = Callable[[Results], list[str]]


def _compared(name: str) -> Part:
    def part(results: Results) -> list[str]:
        measured = results.read(name)
        return [
            f"### {comparison.title(measured)}",
            tables.markdown(comparison.COLUMNS, comparison.rows(measured)),
            "\n".join([*_remarks(measured), *_facts(measured)]),
        ]

    return part


def _played(name: str, prefix: str | None) -> Part:
    """An evaluation, with its plots if they have a prefix."""

    def part(results: Results) -> list[str]:
        played = results.read(name)
        shown = () if prefix is None else IN_EVALUATION
        return [
            *report.markdown_parts(played),
            *(results.picture(plot, played, f"{prefix}{plot.__name__}") for plot in shown),
        ]

    return part


def _parataa_options(results: Results) -> list[str]:
    tuned = results.read("parataa_options")
    return [
        f"Fastest `{tuned['best']}`, fewest rounds `{tuned['fewest_rounds']}`.",
        results.picture(parataa_options.figure, tuned, "parataa_options"),
        "\n".join(_facts(tuned)),
    ]


def _pareto(results: Results) -> list[str]:
    curve = results.read("pareto")
    return [
        results.picture(pareto.figure, curve, "pareto"),
        tables.markdown(comparison.COLUMNS, comparison.rows(curve)),
        "\n".join(_facts(curve)),
    ]


def _residuals(results: Results) -> list[str]:
    curves = results.read("residuals")
    picture = results.picture(residuals.figure, curves, "residual_per_round")
    return [picture, "\n".join(_facts(curves))]


def _steps(results: Results) -> list[str]:
    steps = results.read("rounds_vs_steps")
    settings = [
        f"- Tolerance of `x0`, `chord` and `collocation`: {steps['tolerance']:g}",
        f"- Chord matrices: mean Jacobian of {steps['jacobian_observations']} observations",
    ]
    return [
        results.picture(rounds_vs_steps.figure, steps, "rounds_vs_steps"),
        tables.markdown(rounds_vs_steps.COLUMNS, rounds_vs_steps.rows(steps)),
        "\n".join([*settings, *_facts(steps)]),
    ]


def _bounds(results: Results) -> list[str]:
    bounds = results.read_all("error_bounds_*")
    return [
        tables.markdown(error_bounds.COLUMNS, [error_bounds.row(document) for document in bounds]),
        results.picture(error_bounds.figure, bounds[0], "error_bounds"),
        "\n".join(
            [f"- Plot: `{bounds[0]['sampler']}`, {bounds[0]['steps']} steps", *_facts(bounds[0])]
        ),
    ]


def _latency(results: Results) -> list[str]:
    calls = results.read("latency_vs_batch")
    facts = [f"- Calls of each size: {calls['repeats']}", *_facts(calls, threads=False)]
    return [
        results.picture(latency_vs_batch.figure, calls, "latency_vs_batch"),
        tables.markdown(latency_vs_batch.COLUMNS, latency_vs_batch.rows(calls)),
        "\n".join(facts),
    ]


def _per_round(name: str) -> Part:
    def part(results: Results) -> list[str]:
        document = results.read(name)
        return [
            f"### {document['scheduler']}, {document['steps']} steps",
            tables.markdown(error_per_round.COLUMNS, error_per_round.rows(document)),
            results.picture(error_per_round.figure, document, name),
            "\n".join(_facts(document)),
        ]

    return part


def _training_cost(results: Results) -> list[str]:
    return [tables.markdown(COST, [_cost(run) for run in results.training_runs()])]


def _cut(results: Results) -> list[str]:
    cut = results.read("evaluate_cut")
    few = {f"ddim {k}": results.read(f"evaluate_ddim{k}") for k in (2, 4)}
    rows = [
        *tables.result_rows(cut),
        *([label, *tables.result_rows(document)[0][1:]] for label, document in few.items()),
    ]
    return [tables.markdown(tables.result_columns(cut), rows), tables.lead(cut)]


def _cost(metrics: Path) -> list[str]:
    """A row of COST."""
    config = json.loads((metrics.parent / "config.json").read_text())
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    seconds = records[-1].get("seconds")
    return [
        metrics.parent.name,
        config["objective"],
        str(config["rank"] or "all weights"),
        str(Trajectories(config["data"]).facts["count"]),
        str(records[-1]["step"]),
        "not recorded" if seconds is None else f"{seconds / 60:.0f}",
        f"{records[0]['ema_loss']:.2g}",
        f"{records[-1]['ema_loss']:.2g}",
    ]


def _remarks(measured: Document) -> list[str]:
    """What a reader must know about single rows of a table."""
    lines = []
    for label, entry in measured["samplers"].items():
        if label == AUTO:
            chosen = ", ".join(
                f"{key} {entry['options'][key]}"
                for key in ("tolerance", "window", "lookahead")
                if key in entry["options"]
            )
            lines.append(f"- `{label}` chose `{entry['sampler']}`" + (chosen and f" with {chosen}"))
        if entry["note"] is not None:
            lines.append(f"- `{label}`: {entry['note']}")
    return lines


def _facts(document: Document, *, threads: bool = True) -> list[str]:
    """What a figure means nothing without."""
    machine = f"{document['device']}, {document['cores']} cores"
    machine += f", {document['threads']} thread(s)" if threads else ""
    lines = [f"- Device: {machine}, {document['dtype']}"]
    if "seeds" in document:
        first, last = document["seeds"]
        lines.append(f"- Observations: {document['observations']}, noise seeds {first} to {last}")
    more = [*pages.provenance(document), f"Date: {document['date']}"]
    return [*lines, *(f"- {line}" for line in more)]


PARTS: Mapping[str, Part] = {
    "bench ddpm100": _compared("bench_ddpm100"),
    "bench ddim16": _compared("bench_ddim16"),
    "bench one thread": _compared("bench_one_thread"),
    "parataa options": _parataa_options,
    "pareto": _pareto,
    "residuals": _residuals,
    "rounds vs steps": _steps,
    "error bounds": _bounds,
    "latency vs batch": _latency,
    "error per round ddpm100": _per_round("error_per_round"),
    "error per round ddim16": _per_round("error_per_round_ddim16"),
    "bench pcm": _compared("bench_pcm"),
    "bench pcm ddim16": _compared("bench_pcm_ddim16"),
    "training cost": _training_cost,
    "evaluate pcm": _played("evaluate_pcm", None),
    "evaluate pcm guess": _played("evaluate_pcm_guess", None),
    "evaluate cut": _cut,
    "evaluate": _played("evaluate", ""),
    "evaluate ddim16": _played("evaluate_ddim16", None),
    "evaluate guess": _played("evaluate_guess", "guess_"),
}
"""What pages have places for."""


def fill(page: str, results: Results) -> tuple[str, list[str]]:
    """The page with the places filled that were measured, and the names of the others.

    Raises:
        InputError: if the page has a place that is none of PARTS.
    """
    kept = []

    def part(place: str) -> str | None:
        if place not in PARTS:
            raise InputError(f"the page has a place {place!r}; expected one of {list(PARTS)}")
        try:
            return "\n\n".join(text.strip() for text in PARTS[place](results))
        except FileNotFoundError:
            kept.append(place)
            return None

    return pages.fill(page, part), kept


def main(folder: Path, page: Path, prefix: str) -> None:
    """Write the page anew, in place."""
    results = Results(folder, pages.images_beside(page), prefix)
    filled, kept = fill(page.read_text(encoding="utf-8"), results)
    write_text(page, filled)
    print(f"page: {page}")
    if kept:
        print(f"not measured, kept as they were: {', '.join(kept)}")


if __name__ == "__main__":
    sys.exit(run(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
