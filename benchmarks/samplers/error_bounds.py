"""Share of samples whose error bound holds: `python -m benchmarks.samplers.error_bounds --help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import Common, Document, circumstances, load, main
from para_policy.errors import InputError
from para_policy.terminal import progress_bars
from sim import plots
from sim.evaluation.statistics import success_interval


@dataclass(frozen=True)
class Options(Common):
    """Solve many samples with a calibrated sampler and with `sequential`, and compare the difference
    with the bound that each sample came with; 10,000 samples take 5 minutes for DDIM-16 on two
    cores, and half an hour for DDPM-100."""

    sampler: str = "chord"
    """A sampler that the checkpoint is calibrated for."""
    scheduler: str | None = "ddim"
    """ddpm, ddim or dpmsolver++."""
    steps: int | None = 16
    """Denoising steps."""
    cases: int = 10_000
    """Samples: the first half of the shipped observations, which calibration does not use, over and
    over with new noise."""
    batch: int = 128
    """Samples per network call."""


def measure(options: Options) -> dict[str, Any]:
    """Share of the samples whose error in every action coordinate is within its bound."""
    if options.cases < 1 or options.batch < 1:
        raise InputError(f"cases {options.cases} and batch {options.batch} must be at least 1")
    subject = load(options)
    policy, unseen = subject.policy, subject.unseen()
    how: dict[str, Any] = {"scheduler": options.scheduler, "steps": options.steps}
    sampler = policy.sampler(options.sampler, **how)
    available = len(next(iter(unseen.values())))
    errors, bounds, rounds = [], [], []
    with progress_bars() as progress:
        bar = progress.add_task(options.sampler, total=options.cases)
        for first in range(0, options.cases, options.batch):
            seeds = range(first, min(first + options.batch, options.cases))
            obs = {name: values[[i % available for i in seeds]] for name, values in unseen.items()}
            result = policy.sample(obs, sampler=sampler, seed=seeds, **how)
            exact = policy.sample(obs, sampler="sequential", seed=seeds, **how)
            errors.append(np.abs(result.prediction - exact.prediction).max(axis=1))
            bounds.append(result.stats.error_bound)
            rounds.append(result.stats.rounds)
            progress.advance(bar, len(seeds))
    error, bound = np.concatenate(errors), np.concatenate(bounds)  # (cases, A), physical units
    if np.isnan(bound).any():
        raise InputError(f"{options.sampler} has no error bound here; run para-policy calibrate")
    holds = (error <= bound).all(axis=1)
    shown = np.linspace(0, options.cases - 1, min(options.cases, 2000)).astype(int)
    return {
        **circumstances(options, policy),
        "sampler": options.sampler,
        "unit": policy.config.units.get("action", "physical units"),
        "scheduler": options.scheduler,
        "steps": policy.process(options.scheduler, options.steps).num_steps,
        "cases": options.cases,
        "holds": float(holds.mean()),
        "holds_ci95": list(success_interval(int(holds.sum()), options.cases)),
        "rounds_mean": float(np.concatenate(rounds).mean()),
        "error": {f"p{q}": float(np.percentile(error.max(axis=1), q)) for q in (50, 95, 99, 100)},
        "bound": {f"p{q}": float(np.percentile(bound.max(axis=1), q)) for q in (50, 95, 99, 100)},
        "shown": {
            "error": error[shown].max(axis=1).tolist(),
            "bound": bound[shown].max(axis=1).tolist(),
        },
    }


COLUMNS = (
    "sampler",
    "process",
    "samples",
    "bound holds",
    "error median / p95 / p99 / max",
    "bound median / max",
    "unit",
)


def row(document: Document) -> list[str]:
    """One row of COLUMNS."""
    low, high = document["holds_ci95"]
    error, bound = document["error"], document["bound"]
    return [
        document["sampler"],
        f"{document['scheduler']}, {document['steps']} steps",
        str(document["cases"]),
        f"{100 * document['holds']:.2f} % [{100 * low:.2f}, {100 * high:.2f}]",
        " / ".join(f"{error[key]:.3g}" for key in ("p50", "p95", "p99", "p100")),
        " / ".join(f"{bound[key]:.3g}" for key in ("p50", "p100")),
        document["unit"],
    ]


def figure(document: Document) -> Figure:
    """Error of each sample against its bound; the bound fails above the line."""
    process = f"{document['scheduler'].upper()}, {document['steps']} steps"
    drawing, axes = plots.new_figure(f"Error of {document['sampler']} and its bound, {process}")
    error, bound = np.array(document["shown"]["error"]), np.array(document["shown"]["bound"])
    axes.scatter(bound, error, s=4, alpha=0.4, color=plots.COLORS[0], linewidths=0, label="samples")
    unit = document["unit"]
    ends = [bound.min(), bound.max()]
    axes.plot(ends, ends, color="black", linewidth=1, label="the bound")
    axes.set(xscale="log", yscale="log", xlabel=f"error bound of the sample, {unit}")
    axes.set_ylabel(f"difference to sequential, {unit}")
    plots.legend_above(axes)
    return drawing


if __name__ == "__main__":
    main(Options, measure, figure)
