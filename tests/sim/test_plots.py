"""Every figure: a title, no two series alike, and nothing that is there but cannot be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from benchmarks.engine import latency_vs_batch, network, roofline
from benchmarks.ros import fleet, soak
from benchmarks.samplers import (
    error_bounds,
    error_per_round,
    parataa_options,
    pareto,
    residuals,
    reward_per_round,
    rounds_vs_steps,
)
from sim import plots
from sim.evaluation import figures

LATENCY = {"p50": 10.0, "p95": 12.0, "p99": 13.0}
ERROR = {"median": 1e-3, "p95": 2e-3, "p99": 2e-3, "max": 3e-3}
VARIANTS = (
    *("sequential", "chord", "chord:tolerance=1e-3", "chord:window=none", "x0", "x0:history=1"),
    *("paradigms", "paradigms:start=prior", "parataa", "pcm a chord", "pcm b chord", "pcm c x0"),
)
"""More than there are colours of methods, several of one method."""


def entries(**values: Any) -> dict[str, dict[str, Any]]:
    return {name: dict(values) for name in VARIANTS}


def evaluation() -> dict[str, Any]:
    """An evaluation of one chunk in one round."""
    episode = {"max_reward": 0.9, "rounds": [1], "success": False}
    pair = {"reference": VARIANTS[0], "margin": 0.02, "ci95": [-0.01, 0.01], "difference": 0.0}
    curve = {"p50": [1e-3], "p95": [2e-3]}
    return {
        "episodes": 1,
        "samplers": entries(per_episode=[episode], residual_per_round=curve, latency_ms=LATENCY),
        "paired": dict.fromkeys(VARIANTS[1:], pair),
    }


def point(name: str, rounds: int | None) -> dict[str, Any]:
    shares = {"mean_max_reward": 0.9, "mean_max_reward_ci95": [0.8, 1.0]}
    shares |= {"success_rate": 0.5, "success_rate_ci95": [0.4, 0.6]}
    return {"method": name, "rounds": rounds, "rounds_mean": 3.0, "evals_mean": 9.0, **shares}


def call(engine: str) -> dict[str, Any]:
    return {"engine": engine, "rows": 1, "ms": {"p50": 1.0, "p95": 2.0}}


CALLS = [call(name) for name in ("eager", "compile", "openvino", "onnxruntime")]
PROCESS = {"scheduler": "ddpm", "steps": 100}
SAMPLERS = entries(latency_ms=LATENCY, max_abs_error=ERROR, rounds_mean=3.0)
DRAWN: dict[str, tuple[Callable[[Any], Figure], dict[str, Any]]] = {
    "rewards": (figures.rewards, evaluation()),
    "paired rewards": (figures.paired_rewards, evaluation()),
    "paired differences": (figures.paired_differences, evaluation()),
    "rounds": (figures.rounds, evaluation()),
    "residuals of an evaluation": (figures.residuals, evaluation()),
    "latencies": (figures.latencies, evaluation()),
    "pareto": (
        pareto.figure,
        {
            "samplers": SAMPLERS
            | {
                f"benchmarks.peers:ddim:num_steps={steps}": {
                    "latency_ms": LATENCY,
                    "max_abs_error": None,
                }
                for steps in (10, 16)
            },
            "curves": {name: [name] for name in VARIANTS[1:6]},
        },
    ),
    "residuals": (
        residuals.figure,
        {"samplers": entries(residual_per_round={"p50": [1e-3], "p95": [2e-3]})},
    ),
    "rounds against steps": (
        rounds_vs_steps.figure,
        {
            "points": [
                {"sampler": name, "steps": 25, "rounds_mean": 4, "rounds_min": 3, "rounds_max": 5}
                for name in VARIANTS[1:]
            ]
        },
    ),
    "error per round": (
        error_per_round.figure,
        {**PROCESS, "samplers": entries(error={"p50": [1e-3]})},
    ),
    "error bounds": (
        error_bounds.figure,
        {
            **PROCESS,
            "sampler": "chord",
            "unit": "pixels",
            "shown": {"error": [1.0], "bound": [2.0]},
        },
    ),
    "options of parataa": (
        parataa_options.figure,
        {"samplers": {"parataa:order=1": SAMPLERS["chord"]}, "best": "parataa:order=1"},
    ),
    "reward per round": (
        reward_per_round.figure,
        {"points": [point("sequential", None), *(point(name, 3) for name in VARIANTS[1:])]},
    ),
    "network": (network.figure, {"network": CALLS}),
    "roofline": (
        roofline.figure,
        {
            "large": [],
            "roofline": {
                "gb_per_s": 27.4,
                "gflop_per_s": {"float32": 162.0, "bfloat16": 400.0},
                "points": [
                    {"network": str(n), "engine": "eager", "intensity": 2.0, "gflop_per_s": 5.0}
                    for n in range(9)
                ],
            },
        },
    ),
    "latency against rows": (
        latency_vs_batch.figure,
        {
            "engine": "eager",
            "device": "cpu",
            "curves": [
                {"threads": threads, "rows": [1], "ms_p50": [1.0], "ms_p95": [2.0]}
                for threads in (1, 2)
            ],
        },
    ),
    "fleet": (
        fleet.figure,
        {
            "results": [
                {"way": way, "robots": 1, "chunks_per_s": 7, "latency_ms_p50": 1}
                | {"latency_ms_p95": 2}
                for way in fleet.WAYS
            ]
        },
    ),
    "memory of a soak": (
        soak.memory,
        {
            "rate_hz": 10,
            "seconds": 60,
            "samples": {"at_s": [0, 1], "memory_bytes": {"a": [1, 2], "b": [1, 2]}},
        },
    ),
    "histogram of a soak": (
        lambda document: soak.histogram(document, "latency_ms"),
        {
            "rate_hz": 10,
            "seconds": 60,
            "chunk_lasts_ms": 240,
            "samples": {"latency_ms": {"edges": [0, 1], "counts": [3]}},
        },
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_has_a_title_and_no_two_series_alike(name: str) -> None:
    plot, document = DRAWN[name]
    with plots.pyplot().rc_context(plots.STYLE):
        figure = plot(document)
    try:
        assert figure.get_suptitle()
        for axes in figure.axes:
            colors = dict(series(axes))
            assert len(set(colors.values())) == len(colors), colors
            assert unseen(axes) == []
    finally:
        plots.pyplot().close(figure)


def series(axes: Axes) -> Iterator[tuple[str, str]]:
    """Label and colour of everything that a legend of these axes names."""
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        shown = handle[0] if isinstance(handle, tuple) else handle
        color = shown.get_color() if hasattr(shown, "get_color") else shown.get_facecolor()
        yield label, to_hex(color if isinstance(color, str) else np.atleast_2d(color)[0])


def unseen(axes: Axes) -> list[str]:
    """Lines of one point without a marker."""
    return [
        str(line.get_label())
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_marker() in ("None", "none", "", None)
    ]


def test_colours_of_many_series_are_all_different() -> None:
    names = [str(number) for number in range(40)]
    found = plots.colors(names, {"7": plots.COLORS[0], "9": plots.COLORS[0]})
    assert list(found) == names
    assert len(set(found.values())) == 40
    assert found["7"] == plots.COLORS[0] != found["9"]
