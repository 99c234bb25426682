"""Chunks as a whole: samplers and engines take turns on the same observations and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import Document, quantiles
from benchmarks.engine.plan import Clock, counts, takes_part
from para_policy.comparison import REFERENCE
from para_policy.errors import InputError
from para_policy.policies.policy import ActionResult, DiffusionPolicy
from para_policy.policies.sampler_spec import SamplerSpec
from para_policy.samplers import Sampler
from para_policy.terminal import progress_bars

_BATCH = 64
_WARM_UP_CHUNKS = 2
LEAST_CHUNKS = 20
"""Of each case, where the time suffices: fewer say little."""

Observations = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Process:
    """Scheduler and number of steps."""

    scheduler: str
    steps: int

    @property
    def label(self) -> str:
        return f"{self.scheduler} {self.steps}"


DDPM_100, DDIM_16 = Process("ddpm", 100), Process("ddim", 16)


@dataclass(frozen=True)
class Case:
    """A sampler on an engine."""

    engine: str
    policy: DiffusionPolicy
    spec: SamplerSpec
    sampler: Sampler


def make_cases(
    engines: Mapping[str, DiffusionPolicy], labels: Sequence[str], process: Process
) -> tuple[list[Case], dict[str, str]]:
    """All samplers on all engines, and why some cannot be made."""
    made, left_out = [], {}
    for name, policy in engines.items():
        for label in labels:
            spec = SamplerSpec.parse(label)
            try:
                sampler = spec.make(policy, process.scheduler, process.steps)
            except InputError as error:
                left_out[spec.label] = str(error)
            else:
                made.append(Case(name, policy, spec, sampler))
    return made, left_out


@dataclass(frozen=True)
class Turns:
    """Observations and noise in their order, with the reference samples of each.

    Attributes:
        observations: {name: (n, To, *shape)}; turn i uses number i mod n and the noise seed i.
        process: solved in each turn.
    """

    observations: Observations
    process: Process

    def observation(self, turn: int) -> dict[str, np.ndarray]:
        count = len(next(iter(self.observations.values())))
        return {name: values[turn % count] for name, values in self.observations.items()}

    def batch(self, turns: Sequence[int]) -> dict[str, np.ndarray]:
        """Observations of several turns, {name: (B, To, *shape)}."""
        found = [self.observation(turn) for turn in turns]
        return {name: np.stack([one[name] for one in found]) for name in self.observations}

    def reference(self, policy: DiffusionPolicy, turns: int) -> np.ndarray:
        """(turns, Tp, A) sequential samples in normalised units, made in batches."""
        parts = [range(first, min(first + _BATCH, turns)) for first in range(0, turns, _BATCH)]
        return np.concatenate(
            [
                policy.sample(self.batch(part), seed=list(part), **self.options()).sample
                for part in parts
            ]
        )

    def options(self) -> dict[str, Any]:
        return {"scheduler": self.process.scheduler, "steps": self.process.steps}

    def play(self, case: Case, turn: int, **options: Any) -> ActionResult:
        """One chunk, from numpy on the host to numpy on the host."""
        obs = self.observation(turn)
        how = {"sampler": case.sampler, **self.options(), **options}
        return case.policy.sample(obs, seed=turn, **how)


def measure_chunks(
    cases: Sequence[Case],
    turns: Turns,
    reference: DiffusionPolicy,
    most: int,
    clock: Clock,
) -> list[dict[str, Any]]:
    """Measure every case as often as the time allows, at most `most` times.

    Those at the end that were not begun in time are left out.

    The cases take turns on each observation, each time in another order, so that a disturbance of
    the machine meets all of them alike. Those that are dear are in some of the turns only.
    """
    costs = []
    for case in cases:
        if clock.left:
            costs.append(
                min(turns.play(case, turn).stats.wall_s for turn in range(_WARM_UP_CHUNKS))
            )
    cases = cases[: len(costs)]
    if not cases:
        return []
    exact = turns.reference(reference, max(counts(costs, clock.left, most, LEAST_CHUNKS)))
    often = counts(costs, clock.left, len(exact), LEAST_CHUNKS)
    total = max(often)
    chunks: list[dict[int, ActionResult]] = [{} for _ in cases]
    with progress_bars() as progress:
        bar = progress.add_task(f"chunks, {turns.process.label}", total=sum(often))
        for turn in range(total):
            for k in range(len(cases)):
                which = (k + turn) % len(cases)
                if takes_part(often[which], turn, total):
                    chunks[which][turn] = turns.play(cases[which], turn)
                    progress.advance(bar)
    return [
        {**_name(case, turns.process), **summary(found, exact)}
        for case, found in zip(cases, chunks, strict=True)
    ]


def _name(case: Case, process: Process) -> dict[str, Any]:
    return {"process": process.label, "sampler": case.spec.label, "engine": case.engine}


def summary(chunks: Mapping[int, ActionResult], exact: np.ndarray) -> dict[str, Any]:
    """Times, effort and error of some chunks; `exact[turn]` is what chunk `turn` should be."""
    stats = [chunk.stats for chunk in chunks.values()]
    errors = [np.abs(chunk.sample - exact[turn]).max() for turn, chunk in chunks.items()]
    rounds = [one.rounds for one in stats]
    return {
        "chunks": len(stats),
        "latency_ms": quantiles([1e3 * one.wall_s for one in stats]),
        "rounds_mean": float(np.mean(rounds)),
        "rounds_max": int(np.max(rounds)),
        "evals_mean": float(np.mean([one.evals for one in stats])),
        "error": quantiles(errors),
        "converged_rate": float(np.mean([bool(one.converged) for one in stats])),
    }


def find(chunks: Sequence[Document], process: str, sampler: str, engine: str) -> Document | None:
    """The entry of one case; None where it was not measured."""
    key = (process, sampler, engine)
    matching = (
        entry for entry in chunks if (entry["process"], entry["sampler"], entry["engine"]) == key
    )
    return next(matching, None)


COLUMNS = (
    *("sampler", "engine", "chunks", "rounds mean / max", "rows"),
    *("ms p50 / p95 / p99", "error p50 / p95 / max", "eager / this", "sequential / this"),
)


def rows(chunks: Sequence[Document], process: str) -> list[list[str]]:
    """One row of COLUMNS per case of a process.

    The last two say how many times faster a case is than `sequential` on the eager network, and than
    `sequential` on its own engine.
    """
    shown = []
    for entry in chunks:
        if entry["process"] != process:
            continue
        bases = [find(chunks, process, REFERENCE, engine) for engine in ("eager", entry["engine"])]
        at = entry["latency_ms"]
        shown.append(
            [
                entry["sampler"],
                entry["engine"],
                str(entry["chunks"]),
                f"{entry['rounds_mean']:.1f} / {entry['rounds_max']}",
                f"{entry['evals_mean']:.0f}",
                " / ".join(f"{at[key]:.3g}" for key in ("p50", "p95", "p99")),
                " / ".join(f"{entry['error'][key]:.1e}" for key in ("p50", "p95", "p100")),
                *("-" if b is None else f"{b['latency_ms']['p50'] / at['p50']:.2f}" for b in bases),
            ]
        )
    return shown
