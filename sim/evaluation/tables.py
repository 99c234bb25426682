"""Tables and sentences of the evaluation JSON, shared by the HTML and the Markdown report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.evaluation.seams import quantities
from sim.evaluation.statistics import mcnemar_p
from sim.evaluation.variants import OWN_SAMPLE, Variant
from sim.plots import Document
from sim.tasks.choice import task_in

RESULT_COLUMNS = (
    "Sampler",
    "Mean max reward",
    "Success",
    "Final {score}",
    "Rounds",
    "Evals",
    "Converged",
    "Latency, ms",
)
RESULT_NOTE = (
    "Intervals are 95 %: bootstrap for means, Wilson for success. Rounds (batched network calls, "
    "mean and max) and evals (network rows, mean) are per chunk. Latency (p50 / p95 / p99) is the "
    "wall time from observation to actions of one robot (batch 1), in closed loop, after warm-up."
)
PAIRED_COLUMNS = (
    "Sampler",
    "Compared with",
    "Difference",
    "95 % interval",
    "Verdict",
    "Success won / lost (p)",
    "First-chunk error",
)
PAIRED_NOTE = (
    "Difference of the mean max reward, episodes paired by start state and noise. Equivalent: the "
    "whole 95 % bootstrap interval lies within the margin; different: outside of it. Both need the "
    "episodes that see a loss of whole episodes, rare enough to move the mean by the margin only, with "
    "95 % probability. Too few episodes to say: fewer than that, or than would show equal samplers to "
    "be equivalent in four of five such evaluations. Success won / lost: episodes in which only "
    "this sampler, or only the other one, succeeded; p of McNemar's exact test. First-chunk error: "
    "largest coordinate difference in the first chunk, which both samplers plan from the same "
    "observation and noise; median / p95 / max over the episodes, in normalised action units (the "
    "demonstrations span -1 to 1)."
)
START_NOTE = (
    "+guess: each chunk starts from the one before. +noise: it also has the noise of the one before, "
    "shifted along the horizon. From the second chunk of an episode on that is other noise than in "
    "runs without +noise."
)
OWN_SAMPLE_NOTE = (
    f"{' and '.join(OWN_SAMPLE)}: another sample of the same law, so it has no such error."
)
SEAM_COLUMNS = ("Sampler", "Jump of", "At seams", "Inside chunks")
SEAM_NOTE = (
    "Mean jump of the commanded velocity and acceleration between consecutive actions, where one "
    "chunk follows another and, as a yardstick, inside the chunks; the interval is a 95 % bootstrap "
    "over the episodes. A jump is the largest change across a place, from one finite difference to "
    "the next."
)
ERROR_COLUMNS = ("Sampler", "Chunks", "Median", "p95", "p99", "Max", "Above 0.01")
ERROR_NOTE = (
    "Every chunk solved again by sequential with the same observation and noise: largest coordinate "
    "difference, in normalised action units."
)


@dataclass(frozen=True)
class ReportTable:
    """A table with what stands above and below it."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    ruler = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ruler, *rows))


def title(document: Document) -> str:
    return f"{task_in(document).title} evaluation: " + ", ".join(document["samplers"])


def lead(document: Document) -> str:
    """One sentence on what was run."""
    n, first = document["episodes"], document["seed"]
    part = "Stopped early: " if document.get("partial") else ""
    return (
        f"{part}{_count(n, 'episode')} per sampler, seeds {first} to {first + n - 1} "
        f"({task_in(document).starts}), "
        f"{document['scheduler'].upper()} with {document['steps']} steps, on "
        f"{document['device']} with {_count(document['threads'], 'thread')}, "
        f"engine {document['backend']}, {document['date'][:10]}."
    )


def report_tables(document: Document) -> list[ReportTable]:
    """The tables of the report that have rows."""
    variants = [Variant.parse(name) for name in document["samplers"]]
    notes = [PAIRED_NOTE]
    if any(variant.sampler in OWN_SAMPLE for variant in variants):
        notes.append(OWN_SAMPLE_NOTE)
    if any(variant.start != "cold" for variant in variants):
        notes.append(START_NOTE)
    found = (
        ReportTable(
            "Outcome and effort", result_columns(document), result_rows(document), RESULT_NOTE
        ),
        ReportTable("Paired comparison", PAIRED_COLUMNS, paired_rows(document), " ".join(notes)),
        ReportTable("Error of every chunk", ERROR_COLUMNS, error_rows(document), ERROR_NOTE),
        ReportTable("Seams between chunks", SEAM_COLUMNS, seam_rows(document), SEAM_NOTE),
    )
    return [table for table in found if table.rows]


def result_columns(document: Document) -> list[str]:
    """The columns of `result_rows`."""
    return [column.format(score=task_in(document).score.name) for column in RESULT_COLUMNS]


def result_rows(document: Document) -> list[list[str]]:
    """One row of `result_columns` per sampler."""
    final = f"mean_final_{task_in(document).score.name}"
    return [
        [
            name,
            _with_interval(result["mean_max_reward"], result["mean_max_reward_ci95"]),
            _with_interval(100 * result["success_rate"], result["success_rate_ci95"], 100, 1, " %"),
            f"{result[final]:.3f}",
            f"{result['rounds_mean']:.1f} ({result['rounds_max']})",
            f"{result['evals_mean']:.0f}",
            f"{100 * result['converged_rate']:.1f} %",
            _latency(result["latency_ms"]),
        ]
        for name, result in document["samplers"].items()
    ]


def paired_rows(document: Document) -> list[list[str]]:
    """One row of PAIRED_COLUMNS per sampler besides the reference."""
    rows = []
    for name, pair in document["paired"].items():
        low, high = pair["ci95"]
        error = document["samplers"][name]["first_chunk_error"]
        rows.append(
            [
                name,
                pair["reference"],
                f"{pair['difference']:+.4f}",
                f"{low:+.4f} to {high:+.4f}",
                verdict(pair),
                _success_changes(document, name, pair["reference"]),
                "-"
                if error is None
                else " / ".join(f"{error[key]:.1e}" for key in ("median", "p95", "max")),
            ]
        )
    return rows


def _success_changes(document: Document, name: str, other: str) -> str:
    mine, others = (
        [bool(episode["success"]) for episode in document["samplers"][sampler]["per_episode"]]
        for sampler in (name, other)
    )
    won = sum(a and not b for a, b in zip(mine, others, strict=True))
    lost = sum(b and not a for a, b in zip(mine, others, strict=True))
    return f"{won} / {lost} ({mcnemar_p(won, lost):.2f})"


def seam_rows(document: Document) -> list[list[str]]:
    """Two rows of SEAM_COLUMNS per sampler, for velocity and acceleration."""
    task = task_in(document)
    units = (f"velocity, {task.unit}/s", f"acceleration, {task.unit}/s²")
    labels = list(zip(quantities(task), units, strict=True))
    return [
        [
            name,
            label,
            *(
                _mean_with_interval(result["seams"][quantity][where])
                for where in ("seam", "inside")
            ),
        ]
        for quantity, label in labels
        for name, result in document["samplers"].items()
    ]


def error_rows(document: Document) -> list[list[str]]:
    """One row of ERROR_COLUMNS per sampler whose chunks were checked."""
    return [
        [
            name,
            str(result["chunks"]),
            *(f"{result['max_abs_error'][key]:.1e}" for key in ("median", "p95", "p99", "max")),
            f"{100 * result['error_above_1e-2_rate']:.2f} %",
        ]
        for name, result in document["samplers"].items()
        if result["max_abs_error"] is not None
    ]


def verdict(pair: Mapping[str, Any]) -> str:
    """The equivalence test in words."""
    text = f"{pair['verdict']}, ±{pair['margin']:g}"
    if pair["episodes"] >= pair["episodes_needed"]:
        return text
    return f"{text} (needs about {pair['episodes_needed']})"


def circumstances(document: Document) -> dict[str, str]:
    """What a reader needs to judge or repeat the numbers."""
    n, first = document["episodes"], document["seed"]
    return {
        "Episodes": f"{n} per sampler, seeds {first} to {first + n - 1}",
        "Equivalence margin": f"±{document['margin']:g} of the mean max reward",
        "Scheduler": f"{document['scheduler']}, {document['steps']} steps",
        "Checkpoint": f"{document['checkpoint']} (sha256 of its files "
        f"{document['checkpoint_sha256'][:16]}...)",
        "Device": f"{document['device']}, engine {document['backend']}, {document['dtype']}, "
        f"{_count(document['threads'], 'thread')}",
        "Machine": document["machine"],
        "Vectorised": f"up to {_count(_largest_batch(document), 'episode')} per batch, "
        f"{_where(document)}; latency measured apart",
        "Versions": ", ".join(f"{name} {number}" for name, number in document["versions"].items()),
        "Date": document["date"],
    }


def _where(document: Document) -> str:
    if document.get("cluster") is not None:
        return "one thread for each, on a Ray cluster"
    return _count(document["jobs"], "process", "processes")


def _largest_batch(document: Document) -> int:
    """Most episodes that shared a call of the network, which may be fewer than were asked for."""
    played = (
        episode for result in document["samplers"].values() for episode in result["per_episode"]
    )
    return max(size for episode in played for size in episode["batch_size"])


_TOLD = ("episodes", "seed", "scheduler", "steps", "backend", "dtype")
_TOLD_UNLESS_DEFAULT = ("task", "device", "batch", "jobs", "cluster", "margin", "latency_chunks")
_OPTIONS = {"backend": "engine", "dtype": "precision", "task": "env"}
_ASSUMED = {"task": "pusht", "jobs": 1}
"""What stands in a document where the option was not given."""


def command(document: Document) -> str:
    """The command line that repeats the evaluation."""
    from sim.evaluate import Evaluate  # which plots are drawn without

    words = ["para-policy", "evaluate", "--checkpoint", document["checkpoint"]]
    words += ["--samplers", ",".join(document["samplers"])]
    for key in _TOLD + _TOLD_UNLESS_DEFAULT:
        option = _OPTIONS.get(key, key)
        default = _ASSUMED.get(key, getattr(Evaluate, option))
        value = document.get(key, default)
        if key in _TOLD or value not in (None, default):
            words += [f"--{option.replace('_', '-')}", str(value)]
    words += ["--check-errors"] if document["check_errors"] else []
    return shlex.join([*words, "--json", "results.json", "--report", "results.html"])


def _with_interval(
    value: float, interval: list[float], scale: float = 1.0, digits: int = 3, unit: str = ""
) -> str:
    low, high = (scale * bound for bound in interval)
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _mean_with_interval(statistic: Mapping[str, Any]) -> str:
    if statistic["mean"] is None:
        return "-"
    digits = 0 if statistic["mean"] >= 10 else 2  # of pixels, and of radians
    return _with_interval(statistic["mean"], statistic["ci95"], digits=digits)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _latency(percentiles: Mapping[str, float | None]) -> str:
    values = (percentiles[name] for name in ("p50", "p95", "p99"))
    return " / ".join("-" if value is None else f"{value:.0f}" for value in values)
