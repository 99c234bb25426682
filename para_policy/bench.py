"""All samplers on the same observations and the same noise, in one run."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy import stats

from para_policy import samplers
from para_policy.choice import Choice, Value
from para_policy.command_line import progress_bars
from para_policy.device import PLAIN_ENGINE, cpu_name
from para_policy.errors import InputError
from para_policy.policies.diffusion_policy import ActionResult, DiffusionPolicy
from para_policy.samplers import Sampler

REFERENCE = "sequential"

_WARM_UP_CHUNKS = 2
_RESAMPLES = 9999
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Benchmark:
    """What to compare.

    Attributes:
        samplers: as for `Choice.parse`; the reference is always measured, whether listed or not.
        scheduler, steps: as in `DiffusionPolicy.sample`.
        observations: how many of the checkpoint's observations; observation i has noise seed i.
        first: index of the first of them.
    """

    samplers: tuple[str, ...]
    scheduler: str | None = None
    steps: int | None = None
    observations: int = 24
    first: int = 0

    def __post_init__(self) -> None:
        for name, least in (("observations", 1), ("first", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not self.samplers:
            raise InputError(f"no samplers given; expected some of {', '.join(samplers.names())}")
        self.choices()

    def choices(self) -> tuple[Choice, ...]:
        """The reference, then the others in their order, each once."""
        parsed = {choice.label: choice for choice in map(Choice.parse, self.samplers)}
        return tuple({REFERENCE: Choice(REFERENCE, REFERENCE), **parsed}.values())


def run(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Measure one chunk at a time, as a robot would ask for it.

    The samplers take turns on each observation, each time in another order, so that a disturbance
    of the machine meets all of them alike.

    Args:
        observations: {name: (n, To, *shape)}, physical units.

    Returns:
        for each sampler the entries of the `bench` JSON contract.
    """
    available = len(next(iter(observations.values())))
    if benchmark.first + benchmark.observations > available:
        raise InputError(
            f"{benchmark.observations} observations from {benchmark.first} on asked for, "
            f"the checkpoint holds {available}"
        )
    choices = benchmark.choices()
    made = [choice.make(policy, benchmark.scheduler, benchmark.steps) for choice in choices]
    results: list[list[ActionResult]] = [[] for _ in choices]
    policy.warm_up()
    with progress_bars() as progress:
        total = len(choices) * (benchmark.observations + _WARM_UP_CHUNKS)
        bar = progress.add_task("benchmark", total=total)
        for turn in range(-_WARM_UP_CHUNKS, benchmark.observations):
            index = benchmark.first + max(turn, 0)
            obs = {name: values[index] for name, values in observations.items()}
            for k in range(len(choices)):
                which = (k + turn) % len(choices)
                progress.update(bar, description=choices[which].label)
                result = policy.sample(
                    obs,
                    sampler=made[which],
                    seed=index,
                    scheduler=benchmark.scheduler,
                    steps=benchmark.steps,
                )
                if turn >= 0:
                    results[which].append(result)
                progress.advance(bar)
    return {
        choice.label: {
            **_describe(choice, sampler),
            **_summarise(chunks, results[0], solves=choice.note is None),
        }
        for choice, sampler, chunks in zip(choices, made, results, strict=True)
    }


def make_report(
    benchmark: Benchmark, policy: DiffusionPolicy, observations: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Run the benchmark and say what it was run on; see `run` for arguments and errors."""
    kind, steps = policy.process_key(benchmark.scheduler, benchmark.steps)
    return {
        **describe_machine(policy),
        **describe_software(),
        "scheduler": kind,
        "steps": steps,
        "observations": benchmark.observations,
        "cameras": list(policy.config.cameras),
        "seeds": [benchmark.first, benchmark.first + benchmark.observations - 1],
        "samplers": run(benchmark, policy, observations),
    }


def describe_machine(policy: DiffusionPolicy) -> dict[str, Any]:
    """Device, engine, dtype and threads: what a latency means nothing without."""
    device = policy.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    dtype = str(next(policy.network.parameters()).dtype).removeprefix("torch.")
    return {
        "device": f"{device} ({name})",
        "engine": policy.engine_in_use.label,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def describe_software() -> dict[str, Any]:
    """Versions, and when it was."""
    versions = {name: version(name) for name in ("numpy", "torch", "diffusers")}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


COLUMNS = (
    "sampler",
    "rounds mean / p95 / max",
    "evals mean (max)",
    "ms mean",
    "ms p50 / p95 / p99",
    "error median / p95 / p99 / max",
    "bound holds",
    "speed-up",
)
CAPTION = (
    "Error: largest coordinate difference to sequential with the same noise, in normalised action "
    "units. Speed-up: median over the observations of sequential's time divided by the sampler's "
    "on the same observation."
)


def title(report: Mapping[str, Any]) -> str:
    """One line that says what was measured on what."""
    return (
        f"{report['scheduler']}, {report['steps']} steps, {report['observations']} observations, "
        f"{report['device']}, {report['threads']} thread(s), {report['dtype']}{_engine(report)}"
    )


def _engine(report: Mapping[str, Any]) -> str:
    engine = report.get("engine", PLAIN_ENGINE)
    return "" if engine == PLAIN_ENGINE else f", engine {engine}"


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row of COLUMNS per sampler."""
    return [
        [
            name,
            f"{entry['rounds_mean']:.1f} / {entry['rounds_p95']:.0f} / {entry['rounds_max']}",
            f"{entry['evals_mean']:.0f} ({entry['evals_max']})",
            f"{entry['latency_ms']['mean']:.0f}",
            " / ".join(f"{entry['latency_ms'][key]:.0f}" for key in ("p50", "p95", "p99")),
            _error_text(entry, ("median", "p95", "p99", "max")),
            _bound_text(entry["error_bound"]),
            _speedup_text(entry),
        ]
        for name, entry in report["samplers"].items()
    ]


def table(report: Mapping[str, Any]) -> Table:
    """The main columns of the report, for the terminal."""
    caption = f"{CAPTION} {_encoders(report)}".strip()
    view = Table(title=title(report), caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    view.add_column("sampler", overflow="fold")
    for column in ("rounds (max)", "evals", "ms p50 / p99", "error median / max", "speed-up"):
        view.add_column(column, justify="right", no_wrap=True)
    for name, entry in report["samplers"].items():
        view.add_row(
            name,
            f"{entry['rounds_mean']:.1f} ({entry['rounds_max']})",
            f"{entry['evals_mean']:.0f}",
            f"{entry['latency_ms']['p50']:.0f} / {entry['latency_ms']['p99']:.0f}",
            _error_text(entry, ("median", "max")),
            f"{entry['speedup_vs_sequential']:.2f}",
        )
    return view


def _encoders(report: Mapping[str, Any]) -> str:
    if not report["cameras"]:
        return ""
    typical = np.median([entry["encode_ms"]["p50"] for entry in report["samplers"].values()])
    return f"Of each chunk the camera encoders take {typical:.0f} ms."


def _error_text(entry: Mapping[str, Any], keys: Sequence[str]) -> str:
    error = entry["max_abs_error"]
    if error is None:
        return "another sample"
    text = " / ".join(f"{error[key]:.1e}" for key in keys)
    return text if entry["converged"] else f"{text} ({_share(entry['converged_rate'])} converged)"


def _bound_text(bound: Mapping[str, Any] | None) -> str:
    if bound is None:
        return "-"
    low, high = (f"{100 * end:.0f}" for end in bound["coverage_ci95"])
    return f"{_share(bound['coverage'])} [{low}, {high}]"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _speedup_text(entry: Mapping[str, Any]) -> str:
    value, interval = entry["speedup_vs_sequential"], entry["speedup_ci95"]
    return f"{value:.2f}" + ("" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]")


def _describe(choice: Choice, sampler: Sampler) -> dict[str, Any]:
    """What ran, with every option that has a value of its own."""
    name = getattr(sampler, "name", choice.name)  # `auto` stands for another one
    bare = getattr(sampler, "sampler", sampler)
    return {"sampler": name, "options": dict(_plain_fields(bare)), "note": choice.note}


def _plain_fields(parts: Any) -> Iterable[tuple[str, Value]]:
    """Numbers and words of a sampler and its parts; guesses and tensors are left out."""
    for item in dataclasses.fields(parts):
        value = getattr(parts, item.name)
        if item.name == "guess":
            continue
        if value is None or isinstance(value, (bool, int, float, str)):
            yield item.name, value
        elif dataclasses.is_dataclass(value):
            yield from _plain_fields(value)


def _summarise(
    chunks: Sequence[ActionResult], reference: Sequence[ActionResult], *, solves: bool
) -> dict[str, Any]:
    rounds = np.array([chunk.stats.rounds for chunk in chunks])
    evals = np.array([chunk.stats.evals for chunk in chunks])
    wall_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in chunks])
    encode_ms = 1e3 * np.array([chunk.stats.encode_s for chunk in chunks])
    reference_ms = 1e3 * np.array([chunk.stats.wall_s for chunk in reference])
    ratio = reference_ms / wall_ms
    converged = [bool(chunk.stats.converged) for chunk in chunks]
    return {
        "rounds_mean": float(rounds.mean()),
        "rounds_p95": float(np.percentile(rounds, 95)),
        "rounds_max": int(rounds.max()),
        "evals_mean": float(evals.mean()),
        "evals_max": int(evals.max()),
        "latency_ms": {
            "mean": float(wall_ms.mean()),
            **{f"p{q}": float(np.percentile(wall_ms, q)) for q in (50, 95, 99)},
        },
        "encode_ms": {f"p{q}": float(np.percentile(encode_ms, q)) for q in (50, 95)},
        "max_abs_error": _errors(chunks, reference) if solves else None,
        "error_bound": _coverage(chunks, reference) if solves and chunks is not reference else None,
        "speedup_vs_sequential": float(np.median(ratio)),
        "speedup_ci95": _median_interval(ratio),
        "converged": all(converged),
        "converged_rate": float(np.mean(converged)),
        "residual_per_round": _residual_per_round(chunks),
    }


def _errors(chunks: Sequence[ActionResult], reference: Sequence[ActionResult]) -> dict[str, float]:
    errors = [
        np.abs(chunk.sample - exact.sample).max()
        for chunk, exact in zip(chunks, reference, strict=True)
    ]
    return {
        "median": float(np.median(errors)),
        "p95": float(np.percentile(errors, 95)),
        "p99": float(np.percentile(errors, 99)),
        "max": float(np.max(errors)),
    }


def _coverage(
    chunks: Sequence[ActionResult], reference: Sequence[ActionResult]
) -> dict[str, Any] | None:
    """How often no coordinate of a chunk was further off than its bound, physical units."""
    held, bounds = [], []
    for chunk, exact in zip(chunks, reference, strict=True):
        bound = chunk.stats.error_bound
        if np.isfinite(bound).all():
            error = np.abs(chunk.prediction - exact.prediction).max(axis=0)
            held.append(bool((error <= bound).all()))
            bounds.append(bound)
    if not held:
        return None
    interval = stats.binomtest(sum(held), len(held)).proportion_ci(_CONFIDENCE, method="wilson")
    return {
        "coverage": float(np.mean(held)),
        "coverage_ci95": [float(interval.low), float(interval.high)],
        "observations": len(held),
        "median": np.median(bounds, axis=0).tolist(),
    }


def _median_interval(values: NDArray[np.float64]) -> list[float] | None:
    """Bootstrap 95 % interval of the median, the observations drawn anew; None for one value."""
    if len(values) < 2:
        return None
    result = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=0,
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def _residual_per_round(chunks: Sequence[ActionResult]) -> dict[str, list[float]]:
    """Median and 95th percentile after each round, over the `in_flight` chunks that ran it.

    Empty for samplers without defects: sequential ones, and those that do not measure them.
    """
    curves = [np.asarray(chunk.stats.residuals, dtype=float) for chunk in chunks]
    if not any((curve > 0).any() for curve in curves):
        return {"p50": [], "p95": [], "in_flight": []}
    columns = [
        [curve[k] for curve in curves if len(curve) > k and np.isfinite(curve[k])]
        for k in range(max(map(len, curves)))
    ]
    columns = [column for column in columns if column]
    return {
        "p50": [float(np.median(column)) for column in columns],
        "p95": [float(np.percentile(column, 95)) for column in columns],
        "in_flight": [len(column) for column in columns],
    }
