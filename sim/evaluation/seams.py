"""Smoothness of the seams between the chunks of episodes; see `para_policy.execution.seams`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from para_policy.execution.seams import ACCELERATION, VELOCITY, jumps
from sim.evaluation.statistics import ratio_interval
from sim.tasks.episode import Episode
from sim.tasks.task import Array, SimulatedTask


def quantities(task: SimulatedTask) -> dict[str, int]:
    """What jumps, by its name in the JSON: the order of the differences of positions."""
    return {
        f"velocity_jump_{task.unit}_per_s": VELOCITY,
        f"acceleration_jump_{task.unit}_per_s2": ACCELERATION,
    }


def seam_metrics(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Number of seams, and for each of `quantities` the mean jump at seams and inside chunks.

    Means are over all places of all episodes, their 95 % intervals from a bootstrap over episodes.
    A place with too few actions around it, as before the last actions of an episode, is left out;
    mean and interval are None where none is left.
    """
    task = episodes[0].task
    played = [executed_actions(episode) for episode in episodes]
    metrics: dict[str, Any] = {"count": sum(len(chunks) - 1 for chunks in played)}
    for name, order in quantities(task).items():
        found = [jumps(chunks, order, task.control_dt) for chunks in played]
        metrics[name] = {
            "seam": _mean([at_seams for at_seams, _ in found]),
            "inside": _mean([inside for _, inside in found]),
        }
    return metrics


def executed_actions(episode: Episode) -> list[Array]:
    """The actions (n, action_dim) that were executed of each chunk."""
    starts = [chunk.step for chunk in episode.chunks]
    ends = [*starts[1:], episode.steps]
    return [
        chunk.prediction[chunk.first_action : chunk.first_action + end - chunk.step]
        for chunk, end in zip(episode.chunks, ends, strict=True)
    ]


def _mean(per_episode: Sequence[Array]) -> dict[str, Any]:
    filled = [values for values in per_episode if len(values)]
    if not filled:
        return {"mean": None, "ci95": None}
    sums, counts = [values.sum() for values in filled], [len(values) for values in filled]
    return {"mean": float(sum(sums) / sum(counts)), "ci95": ratio_interval(sums, counts)}
