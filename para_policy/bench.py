"""All samplers on the same observations and the same noise, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from para_policy import samplers
from para_policy.command_line import progress_bars
from para_policy.errors import InputError
from para_policy.policies.diffusion_policy import ActionResult, DiffusionPolicy
from para_policy.schedulers import scheduler_kind

REFERENCE = "sequential"
_WARM_UP_CHUNKS = 2


@dataclass(frozen=True)
class Benchmark:
    """What to compare.

    Attributes:
        samplers: names; the reference is always measured, whether listed or not.
        scheduler, steps: as in `DiffusionPolicy.sample`.
        observations: how many of the checkpoint's observations; observation i has noise seed i.
    """

    samplers: tuple[str, ...]
    scheduler: str | None = None
    steps: int | None = None
    observations: int = 24

    def __post_init__(self) -> None:
        if self.observations < 1:
            raise InputError(f"observations is {self.observations}; expected at least 1")
        if not self.samplers:
            raise InputError(f"no samplers given; expected some of {', '.join(samplers.names())}")
        for name in self.samplers:
            samplers.get(name)


def run(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Measure one chunk at a time, as a robot would ask for it.

    The samplers take turns on each observation, so that a disturbance of the machine meets all of
    them alike.

    Args:
        observations: {name: (n, To, *shape)}, physical units.

    Returns:
        for each sampler the entries of the `bench` JSON contract.
    """
    available = len(next(iter(observations.values())))
    if benchmark.observations > available:
        raise InputError(
            f"{benchmark.observations} observations asked for, the checkpoint holds {available}"
        )
    order = (REFERENCE, *(name for name in benchmark.samplers if name != REFERENCE))
    results: dict[str, list[ActionResult]] = {name: [] for name in order}
    with progress_bars() as progress:
        total = len(order) * (benchmark.observations + _WARM_UP_CHUNKS)
        bar = progress.add_task("benchmark", total=total)
        for turn in range(-_WARM_UP_CHUNKS, benchmark.observations):
            index = max(turn, 0)
            obs = {name: values[index] for name, values in observations.items()}
            for name in order:
                progress.update(bar, description=name)
                result = policy.sample(
                    obs,
                    sampler=name,
                    seed=index,
                    scheduler=benchmark.scheduler,
                    steps=benchmark.steps,
                )
                if turn >= 0:
                    results[name].append(result)
                progress.advance(bar)
    reference = results[REFERENCE]
    return {name: _summarise(chunks, reference) for name, chunks in results.items()}


def make_report(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Run the benchmark and say what it was run on; see `run` for arguments and errors."""
    trained = scheduler_kind(policy.config.noise_scheduler)
    return {
        **describe_machine(policy),
        "scheduler": benchmark.scheduler or trained,
        "steps": policy.process(benchmark.scheduler, benchmark.steps).num_steps,
        "observations": benchmark.observations,
        "samplers": run(benchmark, policy, observations),
    }


def describe_machine(policy: DiffusionPolicy) -> dict[str, Any]:
    """Device, dtype and threads: what a latency means nothing without."""
    device = policy.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    dtype = str(next(policy.network.parameters()).dtype).removeprefix("torch.")
    return {"device": f"{device} ({name})", "dtype": dtype, "threads": torch.get_num_threads()}


COLUMNS = (
    "sampler",
    "rounds mean (max)",
    "evals",
    "ms p50 / p95 / p99",
    "error median / p95 / max",
    "speed-up",
)


def title(report: Mapping[str, Any]) -> str:
    """One line that says what was measured on what."""
    return (
        f"{report['scheduler']}, {report['steps']} steps, {report['observations']} observations, "
        f"{report['device']}, {report['threads']} thread(s), {report['dtype']}"
    )


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row of COLUMNS per sampler."""
    return [
        [
            name,
            f"{entry['rounds_mean']:.1f} ({entry['rounds_max']})",
            f"{entry['evals_mean']:.0f}",
            " / ".join(f"{entry['latency_ms'][key]:.0f}" for key in ("p50", "p95", "p99")),
            " / ".join(f"{entry['max_abs_error'][key]:.1e}" for key in ("median", "p95", "max")),
            f"{entry['speedup_vs_sequential']:.2f}",
        ]
        for name, entry in report["samplers"].items()
    ]


def table(report: Mapping[str, Any]) -> Table:
    """The report as a table for the terminal."""
    view = Table(
        title=title(report),
        caption="error: largest coordinate difference to sequential with the same noise, "
        "in normalised action units",
    )
    for column in COLUMNS:
        view.add_column(column, justify="left" if column == "sampler" else "right")
    for row in rows(report):
        view.add_row(*row)
    return view


def _summarise(chunks: Sequence[ActionResult], reference: Sequence[ActionResult]) -> dict[str, Any]:
    rounds = np.array([chunk.stats.rounds for chunk in chunks])
    wall_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in chunks])
    reference_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in reference])
    errors = np.array(
        [
            np.abs(chunk.sample - exact.sample).max()
            for chunk, exact in zip(chunks, reference, strict=True)
        ]
    )
    return {
        "rounds_mean": float(rounds.mean()),
        "rounds_max": int(rounds.max()),
        "evals_mean": float(np.mean([chunk.stats.evals for chunk in chunks])),
        "latency_ms": {f"p{q}": float(np.percentile(wall_ms, q)) for q in (50, 95, 99)},
        "max_abs_error": {
            "median": float(np.median(errors)),
            "p95": float(np.percentile(errors, 95)),
            "max": float(errors.max()),
        },
        "speedup_vs_sequential": float(np.median(reference_ms) / np.median(wall_ms)),
        "converged": bool(all(chunk.stats.converged for chunk in chunks)),
    }


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return "CPU"
