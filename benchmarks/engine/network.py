"""Network calls: time of a batched one on each engine, against its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.common import Document, quantiles
from benchmarks.engine.plan import Clock, seconds_of
from para_policy.diffusion.denoiser import Denoiser
from para_policy.errors import ParaPolicyError
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.deadline import LatencyTable
from sim import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WARM_UP, _LEAST = 3, 2
_MOST_S = 1.0
"""Seconds for the calls of one size; two calls are made in any case."""

Observation = Mapping[str, np.ndarray]


def measure_calls(
    policies: Mapping[str, DiffusionPolicy],
    observation: Observation,
    rows: Sequence[int],
    clock: Clock,
    repeats: int = 51,
) -> list[dict[str, Any]]:
    """Time calls of every size on every engine.

    Small and large sizes come first, those between them later, so that a curve that ran out of time
    still spans the range. An engine that fails is not asked again, nor is one that took longer to
    prepare its last size than there is time.

    Args:
        policies: by the name of their engine.
        observation: {name: (1, To, *shape)}, that of all rows.
        clock: no new size is begun when its time is over, except the smallest and the largest.

    Returns:
        for each engine and size `engine`, `rows`, `calls`, `prepare_s` and `ms`.
    """
    found: list[dict[str, Any]] = []
    preparing = dict.fromkeys(policies, 0.0)
    for place, size in enumerate(spanning(rows)):
        for name, policy in policies.items():
            if preparing[name] == math.inf or (place > 1 and preparing[name] >= clock.left):
                continue
            call, device = network_call(policy, observation, size), policy.device
            try:
                preparing[name] = seconds_of(call, device)
            except (ParaPolicyError, RuntimeError, MemoryError) as error:
                preparing[name] = math.inf
                found.append({"engine": name, "rows": size, "failure": str(error)})
                continue
            milliseconds = 1e3 * np.array(_times(call, device, repeats))
            found.append(
                {
                    "engine": name,
                    "rows": size,
                    "calls": len(milliseconds),
                    "prepare_s": preparing[name],
                    "ms": quantiles(milliseconds),
                }
            )
    return in_order(found, list(policies))


def in_order(calls: Sequence[Document], engines: Sequence[str]) -> list[Any]:
    """By engine, then by rows."""
    return sorted(calls, key=lambda entry: (engines.index(entry["engine"]), entry["rows"]))


def spanning(rows: Sequence[int]) -> list[int]:
    """The sizes from both ends inwards.

    >>> spanning([1, 2, 4, 8, 16])
    [1, 16, 2, 8, 4]
    """
    left = sorted(set(rows))
    order: list[int] = []
    while left:
        order.append(left.pop(0 if len(order) % 2 == 0 else -1))
    return order


def network_call(
    policy: DiffusionPolicy, observation: Observation, rows: int
) -> Callable[[], torch.Tensor]:
    """One call of the network as samplers make it: the observation bound, the FiLM terms tabulated."""
    denoiser: Denoiser = policy.denoiser(observation)
    config, device = policy.config, policy.device
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, config.horizon, config.action_dim, generator=generator).to(device)
    times = policy.runtime.shapes.spaced_times(policy.num_train_timesteps).to(device)
    t = times[torch.arange(rows, device=device) % len(times)]
    sample = torch.zeros(rows, dtype=torch.int64, device=device)
    return lambda: denoiser(x, t, sample)


def _times(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    kept: list[float] = []
    while len(kept) < _WARM_UP and sum(kept) < _MOST_S:
        kept.append(seconds_of(call, device))
    often = min(max(int(_MOST_S / float(np.median(kept))), _LEAST), repeats)
    return [seconds_of(call, device) for _ in range(often)]


def latency_table(calls: Sequence[Document], engine: str) -> LatencyTable | None:
    """Seconds of a call against rows; None unless at least two sizes were measured."""
    points = [
        (entry["rows"], entry["ms"]["p50"] / 1e3)
        for entry in calls
        if entry["engine"] == engine and "ms" in entry
    ]
    if len(points) < 2:
        return None
    rows, seconds = zip(*points, strict=True)
    return LatencyTable(rows, tuple(np.maximum.accumulate(seconds).tolist()))


def fastest(calls: Sequence[Document], among: Sequence[str], rows: int = 64) -> str:
    """The engine with the shortest call of about so many rows; the first of `among` if none is known."""
    tables = {name: latency_table(calls, name) for name in among}
    known = {name: table.predict(rows) for name, table in tables.items() if table is not None}
    return min(known, key=lambda name: known[name]) if known else among[0]


COLUMNS = ("engine", "rows", "calls", "ms p50 / p95 / p99", "ms per row", "first call, s")


def rows(calls: Sequence[Document]) -> list[list[str]]:
    """One row of COLUMNS per engine and size that worked."""
    return [
        [
            entry["engine"],
            str(entry["rows"]),
            str(entry["calls"]),
            " / ".join(f"{entry['ms'][key]:.3g}" for key in ("p50", "p95", "p99")),
            f"{entry['ms']['p50'] / entry['rows']:.2g}",
            f"{entry['prepare_s']:.2g}",
        ]
        for entry in calls
        if "ms" in entry
    ]


def figure(document: Document) -> Figure:
    """Median time of a call against its rows, one line per engine."""
    drawing, axes = plots.new_figure("Time of a network call on each engine")
    for name, color in plots.colors(entry["engine"] for entry in document["network"]).items():
        points = [
            (entry["rows"], entry["ms"]["p50"])
            for entry in document["network"]
            if entry["engine"] == name and "ms" in entry
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=name, markersize=4)
    axes.set(xlabel="rows of a network call", ylabel="ms per call, median")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    plots.legend_above(axes)
    return drawing
