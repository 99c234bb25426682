"""Writes docs/results.md and its plots from the JSON files of `scripts/results.sh`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import (
    error_bounds,
    error_per_round,
    latency_vs_batch,
    parataa_options,
    pareto,
    residuals,
    rounds_vs_steps,
)
from para_policy import bench
from para_policy.choice import AUTO
from para_policy.training.trajectories import Trajectories
from sim import plots, report, tables

Document = Mapping[str, Any]

HEADER = """# Results

Every figure on this page comes from `make results` (`scripts/results.sh`), which anyone can rerun.
All samplers of a table ran on the same eager network and the same noise: on single observations
taking turns in one process, in closed loop from the same start states. Latency is the wall time from
the observation on the host to the actions on the host, one robot, after warm-up. {where}
"""

BENCH_NOTE = """Columns: *rounds* are batched network calls, *evals* network rows. *Error* is the
largest coordinate difference to `sequential` with the same noise, over the whole 16 x 2 chunk, in
normalised action units (1 unit is about 250 px); percentiles over the observations. *Bound holds*:
share of the chunks whose error in every action coordinate is within the `error_bound` that they came
with, Wilson 95 % interval; "-" where the sampler has no bound. *Speed-up*: median over the
observations of `sequential`'s time divided by the sampler's on the same observation, 95 % bootstrap
interval. The samplers take turns in an order that rotates from observation to observation.

`diffusers-paradigms` is the published loop around diffusers' `DDPMParallelScheduler`, written
independently of our engine; `diffusers-ddpm` is `DDPMScheduler.step` in a loop, an outside check of
`sequential`. `diffusers-ddim10` and `-ddim16` take fewer steps: they are fast, but they answer
another question, so their difference to `sequential` is no error of solving."""

TUNING_NOTE = """ParaTAA's options were searched on {n} other observations ({first} to {last}):
fastest `{best}`, fewest rounds `{rounds}`. The tables above show its defaults and both."""

PARETO_NOTE = """Each curve is one sampler at several tolerances, {n} observations: dots are medians,
lines reach up to the largest error. Dashed: time of `sequential`, and of samplers with fewer steps,
whose sample is another."""

RESIDUAL_NOTE = """Largest first-order defect in the window before each round's update; median of {n}
chunks, shaded up to the 95th percentile. A chunk counts for the rounds that it took part in. Windows
differ: `paradigms` sees 20 states at a time, the others most or all of them."""

STEPS_NOTE = """Mean rounds, shaded from the least to the most; the number of observations n is in the
table, and it is small where rows are many. The network was trained with 100 timesteps; for N > 100
the same cosine schedule is cut ten times finer and timestep t' is fed to the network as
(t' + 1) / 10 - 1, which has the same noise level. So this shows how solvers scale, not how good the
actions are. `x0` and `chord` run with tolerance {tolerance:g}, which makes their errors about those of
the published methods with their defaults. Chord matrices come from the mean Jacobian of
{jacobians} observations."""

BOUNDS_NOTE = """A calibrated result carries an `error_bound`. Here many fresh samples, of observations
and noise that calibration has not seen, are solved by `{sampler}` and by `sequential`, and the bound
*holds* if no action coordinate differs by more. Pixels; 95 % Wilson interval."""

LATENCY_NOTE = """One network call as samplers make it (FiLM terms tabulated), median and 95th
percentile of {n} calls, the sizes taking turns. A parallel sampler pays if its rounds cost less than N
calls of one row."""

PCM_NOTE = """Median error of the present clean sample after round 1, 2, ... 6, {n} observations; then
the rounds until acceptance with their 95 % interval (normal approximation), rows, and the error of the
accepted sample, all in normalised action units against `sequential`. `+start`: from the linear guess
of the calibration, where `x0`, `chord` and `pcm` begin anyway. `pcm` rows name the training run of
`scripts/distill.sh` and the splitting; the rounds of the fine-tuned network are counted. With the
`identity` splitting `pcm` accepts by the rule of `paradigms`, else by that of `chord`. The fine-tuned
network alone acts in its rounds, unless *blend* says that its weights or its steps are mixed with the
base network's."""

COST_NOTE = """Training ran on one CPU thread beside other work, so times are upper limits. *Left*:
share of the squared distance to the fixed point that is left after the trained rounds on 64 held-out
trajectories, EMA weights, as logged first and last."""

CUT_NOTE = """Approximate, level E4: stopped after so many rounds, whatever the residual. `pcm` here
never switches. `ddim` is sequential DDIM with as many network calls: another process, whose noise
cannot be paired with DDPM's, so compare its mean only."""

IN_EVALUATION = (
    plots.rewards,
    plots.paired_differences,
    plots.paired_rewards,
    plots.rounds,
    plots.residuals,
)


def page(folder: Path, images: Path) -> str:
    """The whole page; saves the plots in `images`."""

    def read(name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
        return document

    def picture(plot: Callable[[Any], Figure], document: Document, name: str) -> str:
        plots.save(plot, document, images / f"{name}.png")
        return f"![{name.replace('_', ' ')}](images/{name}.png)"

    compared = [read(name) for name in ("bench_ddpm100", "bench_ddim16", "bench_one_thread")]
    tuned, curve, defects, steps, calls = (
        read(module.__name__.rpartition(".")[2])
        for module in (parataa_options, pareto, residuals, rounds_vs_steps, latency_vs_batch)
    )
    played = {name: read(name) for name in ("evaluate", "evaluate_four", "evaluate_guess")}

    bounds = [read(name) for name in ("error_bounds_ddpm100", "error_bounds_ddim16")]
    documents = [*compared, tuned, curve, defects, steps, calls, *bounds]
    parts = [HEADER.format(where=_where(documents, played.values()))]
    parts.append("## Samplers on the same observations")
    for measured in compared:
        parts += [
            f"### {bench.title(measured)}",
            tables.markdown(bench.COLUMNS, bench.rows(measured)),
            "\n".join([*_remarks(measured), *_facts(measured)]),
        ]
    first, last = tuned["seeds"]
    parts += [
        BENCH_NOTE,
        "### Options of ParaTAA",
        TUNING_NOTE.format(
            n=tuned["observations"],
            first=first,
            last=last,
            best=tuned["best"],
            rounds=tuned["fewest_rounds"],
        ),
        picture(parataa_options.figure, tuned, "parataa_options"),
        "\n".join(_facts(tuned)),
        "## Error against time",
        PARETO_NOTE.format(n=curve["observations"]),
        picture(pareto.figure, curve, "pareto"),
        tables.markdown(bench.COLUMNS, bench.rows(curve)),
        "\n".join(_facts(curve)),
        "## Convergence",
        RESIDUAL_NOTE.format(n=defects["observations"]),
        picture(residuals.figure, defects, "residual_per_round"),
        "\n".join(_facts(defects)),
        "## Rounds against denoising steps",
        STEPS_NOTE.format(tolerance=steps["tolerance"], jacobians=steps["jacobian_observations"]),
        picture(rounds_vs_steps.figure, steps, "rounds_vs_steps"),
        tables.markdown(rounds_vs_steps.COLUMNS, rounds_vs_steps.rows(steps)),
        "\n".join(_facts(steps)),
        "## Error bounds",
        BOUNDS_NOTE.format(sampler=bounds[0]["sampler"]),
        tables.markdown(error_bounds.COLUMNS, [error_bounds.row(document) for document in bounds]),
        picture(error_bounds.figure, bounds[0], "error_bounds"),
        "\n".join(_facts(bounds[0])),
        "## Latency of the network",
        LATENCY_NOTE.format(n=calls["repeats"]),
        picture(latency_vs_batch.figure, calls, "latency_vs_batch"),
        tables.markdown(latency_vs_batch.COLUMNS, latency_vs_batch.rows(calls)),
        "\n".join(_facts(calls, threads=False)),
    ]
    parts += _picard_consistency(read, picture, folder)
    for heading, name, prefix in (
        ("Closed loop in PushT", "evaluate", ""),
        ("Closed loop of the published samplers", "evaluate_four", "four_"),
        ("Starting from the last chunk", "evaluate_guess", "guess_"),
    ):
        parts += [f"## {heading}", *report.markdown_parts(played[name])]
        parts += [picture(plot, played[name], f"{prefix}{plot.__name__}") for plot in IN_EVALUATION]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _picard_consistency(
    read: Callable[[str], dict[str, Any]],
    picture: Callable[[Callable[[Any], Figure], Document, str], str],
    folder: Path,
) -> list[str]:
    """The part on the trained sampler, `pcm`."""
    curves = {name: read(name) for name in ("error_per_round", "error_per_round_ddim16")}
    parts = ["## PCM: trained to converge in fewer rounds"]
    parts.append(PCM_NOTE.format(n=curves["error_per_round"]["observations"]))
    for name, document in curves.items():
        parts += [
            f"### {document['scheduler']}, {document['steps']} steps",
            tables.markdown(error_per_round.COLUMNS, error_per_round.rows(document)),
            picture(error_per_round.figure, document, name),
            "\n".join(_facts(document)),
        ]
    for name in ("bench_pcm", "bench_pcm_ddim16"):
        measured = read(name)
        parts += [
            f"### {bench.title(measured)}: time",
            tables.markdown(bench.COLUMNS, bench.rows(measured)),
            "\n".join([*_remarks(measured), *_facts(measured)]),
        ]
    runs = sorted(folder.parent.glob("pcm/*/metrics.jsonl"))
    parts += ["### Training cost", COST_NOTE, tables.markdown(COST, [_cost(run) for run in runs])]
    for heading, name in (
        ("PCM in closed loop", "evaluate_pcm"),
        ("PCM from the last chunk", "evaluate_pcm_guess"),
    ):
        parts += [f"### {heading}", *report.markdown_parts(read(name))]
    cut = read("evaluate_cut")
    few = {f"ddim {k}": read(f"evaluate_ddim{k}") for k in (2, 4)}
    rows = [
        *tables.result_rows(cut),
        *([label, *tables.result_rows(document)[0][1:]] for label, document in few.items()),
    ]
    return [
        *parts,
        "### Stopped early",
        CUT_NOTE,
        tables.markdown(tables.RESULT_COLUMNS, rows),
        f"{tables.lead(cut)}",
    ]


COST = ("run", "objective", "rank", "trajectories", "steps", "minutes", "left first", "left last")


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


def _where(documents: Iterable[Document], played: Iterable[Document]) -> str:
    devices = sorted({str(document["device"]) for document in documents})
    everywhere = [*devices, *(str(document["device"]) for document in played)]
    gpu = any("cuda" in device for device in everywhere)
    return f"Measured on: {', '.join(devices)}." + ("" if gpu else " No figure is from a GPU.")


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
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    sha = document["checkpoint_sha256"][:16]
    return [
        *lines,
        f"- Checkpoint: {document['checkpoint']} (sha256 {sha}...)",
        f"- Versions: {versions}",
        f"- Date: {document['date']}",
    ]


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    pictures = target.parent / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    target.write_text(page(source, pictures))
