"""Throughput of one policy node that serves many robots: `python -m benchmarks.ros.fleet --help`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import Common, Document, Subject, circumstances, load, main
from para_policy.errors import InputError, ParaPolicyError
from para_policy.extras import require_ros
from para_policy.terminal import progress_bars
from sim import plots

WAYS = ("in one batch", "one after the other")
_DT_NS = 100_000_000


@dataclass(frozen=True)
class Options(Common):
    """Chunks for several robots that want them at the same moment; a minute or two on two cores.

    In one batch is what a policy node does with `robots` that are due together: its planner, its
    solver and its policy, without DDS. One after the other: the same robots, each solved alone.
    The latency of a chunk counts from the moment that all are due.
    """

    robots: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of robots."""
    turns: int = 20
    """Chunks of each robot; the ways and the numbers take turns."""
    sampler: str = "chord"
    """Of all chunks."""
    scheduler: str | None = None
    """Noise scheduler: ddpm, ddim, dpmsolver++ (default: the checkpoint's)."""
    steps: int | None = None
    """Sampling steps (default: the checkpoint's)."""


def measure(options: Options) -> dict[str, Any]:
    """Rates, latencies and rounds of each way and number."""
    if options.turns < 1 or not options.robots or min(options.robots) < 1:
        raise InputError(
            f"--robots {options.robots} and --turns {options.turns}: expected 1 or more"
        )
    require_ros()
    subject = load(options)
    found: dict[tuple[int, str], _Found] = {
        (robots, way): _Found([], [], []) for robots in options.robots for way in WAYS
    }
    with progress_bars() as progress:
        bar = progress.add_task("chunks", total=(options.turns + 1) * len(found))
        for turn in range(options.turns + 1):
            for (robots, way), kept in found.items():
                measured = _serve(options, subject, robots, way, turn)
                if turn > 0:  # the first one is a warm-up
                    kept.add(measured)
                progress.advance(bar)
    return {
        **circumstances(options, subject.policy),
        "sampler": options.sampler,
        "scheduler": options.scheduler,
        "steps": options.steps,
        "turns": options.turns,
        "results": [kept.summary(robots, way) for (robots, way), kept in found.items()],
    }


@dataclass(frozen=True)
class _Found:
    """Seconds until each chunk was out, and until the last of a turn was; rounds of each chunk."""

    latencies_s: list[float]
    turns_s: list[float]
    rounds: list[int]

    def add(self, other: _Found) -> None:
        self.latencies_s.extend(other.latencies_s)
        self.turns_s.extend(other.turns_s)
        self.rounds.extend(other.rounds)

    def summary(self, robots: int, way: str) -> dict[str, Any]:
        latencies_ms = 1e3 * np.asarray(self.latencies_s)
        return {
            "robots": robots,
            "way": way,
            "chunks_per_s": len(self.latencies_s) / sum(self.turns_s),
            "latency_ms_p50": float(np.percentile(latencies_ms, 50)),
            "latency_ms_p95": float(np.percentile(latencies_ms, 95)),
            "latency_ms_max": float(latencies_ms.max()),
            "rounds_mean": float(np.mean(self.rounds)),
            "rounds_max": max(self.rounds),
        }


def _serve(options: Options, subject: Subject, robots: int, way: str, turn: int) -> _Found:
    """One chunk for each robot."""
    names = [f"robot_{number}" for number in range(robots)]
    groups = [names] if way == WAYS[0] else [[name] for name in names]
    fleets = [_fleet(options, subject, group, turn) for group in groups]
    latencies, rounds = [], []
    start = time.perf_counter()
    for fleet in fleets:
        plans = fleet.plan(_DT_NS)
        elapsed = time.perf_counter() - start
        for plan in plans.values():
            if isinstance(plan, ParaPolicyError):
                raise plan
            latencies.append(elapsed)
            rounds.append(int(plan.stats.rounds))
    return _Found(latencies, [latencies[-1]], rounds)


def _fleet(options: Options, subject: Subject, names: Sequence[str], turn: int) -> Any:
    """Robots that have just begun: a cold start needs the same rounds, whoever is served first."""
    from para_policy.planning.fleet import Fleet
    from para_policy.planning.settings import PlannerSettings

    policy = subject.policy
    settings = PlannerSettings(
        sampler=policy.sampler(options.sampler, scheduler=options.scheduler, steps=options.steps),
        scheduler=options.scheduler,
        steps=options.steps,
        dt_ns=_DT_NS,
        max_age_ns=_DT_NS,
    )
    fleet = Fleet(policy, settings, seed=turn, robots=names)
    for name, planner in fleet.planners.items():
        number = int(name.removeprefix("robot_"))
        seen = (number + 8 * turn) % subject.available
        for key, values in subject.observations.items():
            for index, value in enumerate(values[seen]):
                planner.observe(key, index * _DT_NS, value)
    return fleet


def figure(document: Document) -> Figure:
    """Chunks per second, and how long a robot waits, against the number of robots."""
    drawing, grid = plots.new_panels("Robots that want a chunk at the same moment", 1, 2, 9.0, 3.6)
    panels = grid[0]
    for way, color in zip(WAYS, plots.COLORS, strict=False):
        results = [result for result in document["results"] if result["way"] == way]
        robots = [result["robots"] for result in results]
        rates = [result["chunks_per_s"] for result in results]
        panels[0].plot(robots, rates, "o-", color=color, label=way)
        p50 = [result["latency_ms_p50"] for result in results]
        p95 = [result["latency_ms_p95"] for result in results]
        panels[1].plot(robots, p50, "o-", color=color, label=way)
        panels[1].fill_between(robots, p50, p95, color=color, alpha=0.15, linewidth=0)
    panels[0].set(xlabel="robots", ylabel="chunks per second")
    panels[1].set(xlabel="robots", ylabel="ms until a robot has its chunk,\nmedian up to p95")
    for axes in panels:
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({result["robots"] for result in document["results"]}))
        axes.legend(fontsize=8)
    return drawing


COLUMNS = ("robots", "way", "chunks per s", "ms p50", "ms p95", "rounds mean (max)")


def rows(document: Document) -> list[list[str]]:
    """One row of COLUMNS per number of robots and way."""
    return [
        [
            str(result["robots"]),
            result["way"],
            f"{result['chunks_per_s']:.1f}",
            f"{result['latency_ms_p50']:.0f}",
            f"{result['latency_ms_p95']:.0f}",
            f"{result['rounds_mean']:.1f} ({result['rounds_max']})",
        ]
        for result in document["results"]
    ]


if __name__ == "__main__":
    main(Options, measure, figure)
