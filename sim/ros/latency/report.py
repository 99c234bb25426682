"""Numbers, table and plot of the latency experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sim import plots
from sim.evaluation.seams import executed_actions, quantities, seam_metrics
from sim.evaluation.statistics import compare_paired, mean_interval, percentiles, success_interval
from sim.pusht.task import PUSHT
from sim.ros.latency.conditions import Condition
from sim.tasks.episode import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VELOCITY, ACCELERATION = quantities(PUSHT)


def summarize(
    runs: Mapping[str, Sequence[Episode]],
    conditions: Mapping[str, Any],
    reference: str,
    margin: float,
) -> dict[str, Any]:
    """The part `conditions` of the JSON; episode i of all runs has one seed.

    Args:
        conditions: by name, dataclasses; the reference may lack.
    """
    rewards = {name: [episode.max_reward for episode in runs[name]] for name in runs}
    summaries: dict[str, Any] = {}
    for name, episodes in runs.items():
        condition = conditions.get(name, Condition(reference, 0.0))
        chunks = [chunk for episode in episodes for chunk in episode.chunks]
        successes = sum(episode.success for episode in episodes)
        summaries[name] = {
            **asdict(condition),
            "mean_max_reward": float(np.mean(rewards[name])),
            "mean_max_reward_ci95": mean_interval(rewards[name]),
            "success_rate": successes / len(episodes),
            "success_rate_ci95": success_interval(successes, len(episodes)),
            "seams": seam_metrics(episodes),
            "holds_per_episode": float(np.mean([holds(episode) for episode in episodes])),
            "actions_per_chunk": sum(episode.steps for episode in episodes) / len(chunks),
            "rounds_mean": float(np.mean([chunk.rounds for chunk in chunks])),
            "latency_ms": percentiles([1e3 * chunk.batch_wall_s for chunk in chunks]),
            "max_rewards": rewards[name],
        }
        if name != reference:
            paired = compare_paired(rewards[reference], rewards[name], margin)
            summaries[name]["minus_reference"] = paired.to_json()
    return {"reference": reference, "conditions": summaries}


def holds(episode: Episode) -> int:
    """Control periods in which the board was commanded nothing new: the last action again."""
    actions = np.concatenate(executed_actions(episode))
    return int((np.diff(actions, axis=0) == 0).all(axis=1).sum())


def table(document: plots.Document) -> str:
    """Markdown: one row per condition."""
    columns = (
        *("condition", "mean max reward", "success"),
        f"minus {document['reference'].replace('_', '-')}",
        *("velocity jump, seam (inside)", "acceleration jump, seam (inside)"),
        *("holds", "actions per chunk", "rounds", "latency ms p50 / p95"),
    )
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for name, result in document["conditions"].items():
        latency = result["latency_ms"]
        batched = result.get("mode") == document["reference"]  # in process, all episodes at once
        cells = (
            name,
            _with_interval(result["mean_max_reward"], result["mean_max_reward_ci95"], ".3f"),
            f"{100 * result['success_rate']:.0f} %",
            _difference(result.get("minus_reference")),
            _jump(result, VELOCITY),
            _jump(result, ACCELERATION),
            f"{result['holds_per_episode']:.1f}",
            f"{result['actions_per_chunk']:.1f}",
            f"{result['rounds_mean']:.1f}",
            "-" if batched else f"{latency['p50']:.0f} / {latency['p95']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(document: plots.Document) -> Figure:
    """Reward, and jumps of velocity and acceleration at seams, against the added latency."""
    title = "PushT over ROS 2 with added latency"
    drawing, grid = plots.new_panels(title, 1, 3, 12.0, 3.8)
    panels: tuple[Axes, ...] = tuple(grid[0])
    results = document["conditions"]
    reference = results[document["reference"]]
    modes = dict.fromkeys(r["mode"] for r in results.values() if r is not reference)
    for axes, heading in zip(panels, ("mean max reward", VELOCITY, ACCELERATION), strict=True):
        axes.axhline(_point(reference, heading)[0], color="#9aa1a9", label="in-process, no latency")
        ticks = sorted({r["added_latency_ms"] for r in results.values()})
        for number, (mode, color) in enumerate(plots.colors(modes).items()):
            of_mode = [r for r in results.values() if r["mode"] == mode]
            at = np.array([r["added_latency_ms"] for r in of_mode]) + 1.5 * (number - 1.5)
            points = np.array([_point(result, heading) for result in of_mode])
            errors = np.abs(points[:, 1:] - points[:, :1]).T
            label = mode.replace("_", " ")
            axes.errorbar(at, points[:, 0], errors, fmt="o-", color=color, label=label, capsize=2)
        axes.set(xlabel="added latency, ms", ylabel=_LABELS[heading], xticks=ticks)
        axes.set_ylim(0, 1.03 if heading not in (VELOCITY, ACCELERATION) else None)
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=5)
    return drawing


_LABELS = {
    "mean max reward": "mean max reward, 95 %",
    VELOCITY: "velocity jump at seams, px/s",
    ACCELERATION: "acceleration jump at seams, px/s²",
}


def _point(result: Mapping[str, Any], heading: str) -> tuple[float, float, float]:
    """Mean and its interval; NaN where there was nothing to measure."""
    if heading in (VELOCITY, ACCELERATION):
        found = result["seams"][heading]["seam"]
        mean, interval = found["mean"], found["ci95"]
    else:
        mean, interval = result["mean_max_reward"], result["mean_max_reward_ci95"]
    return (np.nan, np.nan, np.nan) if mean is None else (mean, *interval)


def _with_interval(value: float, interval: Sequence[float], form: str) -> str:
    return f"{value:{form}} [{interval[0]:{form}}, {interval[1]:{form}}]"


def _difference(paired: Mapping[str, Any] | None) -> str:
    return "-" if paired is None else _with_interval(paired["difference"], paired["ci95"], "+.3f")


def _jump(result: Mapping[str, Any], quantity: str) -> str:
    seam, inside = (result["seams"][quantity][place]["mean"] for place in ("seam", "inside"))
    return " ".join(
        ("-" if seam is None else f"{seam:.0f}", "(-)" if inside is None else f"({inside:.0f})")
    )
