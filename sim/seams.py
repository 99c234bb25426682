"""How smoothly chunks follow each other: jumps of the commanded motion at their seams.

The commanded velocity between two actions is their difference over CONTROL_DT, the acceleration
the difference of two velocities over CONTROL_DT, without any filter. The jump of one of them at a
place between two actions is the largest change from one of its values to the next, over all
changes whose actions lie on both sides of that place. The same is computed at every place inside
a chunk that has as many actions around it, as the yardstick: what the chunks do on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sim.env import CONTROL_DT
from sim.episode import Array, Episode
from sim.statistics import ratio_interval

QUANTITIES = {"velocity_jump_px_per_s": 2, "acceleration_jump_px_per_s2": 3}
"""Name in the JSON -> order of the differences of positions; also the actions on either side."""


def seam_metrics(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Number of seams, and for each of QUANTITIES the mean jump at seams and inside chunks.

    Means are over all places of all episodes, their 95 % intervals from a bootstrap over episodes.
    A place with too few actions around it, as before the last actions of an episode, is left out;
    mean and interval are None where none is left.
    """
    played = [executed_actions(episode) for episode in episodes]
    metrics: dict[str, Any] = {"count": sum(len(chunks) - 1 for chunks in played)}
    for name, order in QUANTITIES.items():
        found = [jumps(chunks, order) for chunks in played]
        metrics[name] = {
            "seam": _mean([at_seams for at_seams, _ in found]),
            "inside": _mean([inside for _, inside in found]),
        }
    return metrics


def executed_actions(episode: Episode) -> list[Array]:
    """The actions (n, 2) that were executed of each chunk, pixels."""
    starts = [chunk.step for chunk in episode.chunks]
    ends = [*starts[1:], episode.steps]
    return [
        chunk.prediction[chunk.first_action : chunk.first_action + end - chunk.step]
        for chunk, end in zip(episode.chunks, ends, strict=True)
    ]


def jumps(chunks: Sequence[Array], order: int) -> tuple[Array, Array]:
    """Jumps at the seams and inside the chunks: of velocity for order 2, acceleration for 3.

    Args:
        chunks: executed actions (n, 2) of each chunk, pixels.
        order: of the differences; a place needs as many actions of one chunk on either side.

    Returns:
        two arrays in px / s^(order - 1).
    """
    at_seams = [
        _jumps_of(np.concatenate([before[-order:], after[:order]]), order)
        for before, after in pairwise(chunks)
        if min(len(before), len(after)) >= order
    ]
    inside = [_jumps_of(chunk, order) for chunk in chunks if len(chunk) >= 2 * order]
    return np.concatenate([*at_seams, np.empty(0)]), np.concatenate([*inside, np.empty(0)])


def _jumps_of(actions: Array, order: int) -> Array:
    """Jumps at all places with `order` actions (n, 2) on either side: (n - 2 order + 1,)."""
    changes = np.linalg.norm(np.diff(actions, order, axis=0), axis=1) / CONTROL_DT ** (order - 1)
    spanning = np.lib.stride_tricks.sliding_window_view(changes, order)
    return np.asarray(spanning.max(axis=1))


def _mean(per_episode: Sequence[Array]) -> dict[str, Any]:
    filled = [values for values in per_episode if len(values)]
    if not filled:
        return {"mean": None, "ci95": None}
    sums, counts = [values.sum() for values in filled], [len(values) for values in filled]
    return {"mean": float(sum(sums) / sum(counts)), "ci95": ratio_interval(sums, counts)}
