"""Seams between chunks: jumps of the commanded motion where one follows another.

The commanded velocity between two actions is their difference over dt, the acceleration the
difference of two velocities over dt, without any filter. Differences are those of the coordinates:
angles and rotations do not jump where their numbers do. The jump of one of them at a place between
two actions is the largest change from one of its values to the next, over all changes whose actions
lie on both sides of that place. The same is computed at every place inside a chunk that has as many
actions around it, as the yardstick: what the chunks do on their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import UNKNOWN, Coordinates

Array = NDArray[np.float64]
VELOCITY, ACCELERATION = 2, 3
"""Order of the differences of positions; also the actions that are needed on either side."""


def jumps(
    chunks: Sequence[Array], order: int, dt_s: float, coordinates: Coordinates = UNKNOWN
) -> tuple[Array, Array]:
    """Jumps at the seams and inside the chunks: of velocity for order 2, acceleration for 3.

    Args:
        chunks: executed actions (n, A) of each chunk, one following the other.
        order: of the differences; a place needs as many actions of one chunk on either side.
        dt_s: time between actions.
        coordinates: what they mean.

    Returns:
        two arrays in action units / s^(order - 1).
    """
    at_seams = [
        _jumps_of(np.concatenate([before[-order:], after[:order]]), order, dt_s, coordinates)
        for before, after in pairwise(chunks)
        if min(len(before), len(after)) >= order
    ]
    inside = [
        _jumps_of(chunk, order, dt_s, coordinates) for chunk in chunks if len(chunk) >= 2 * order
    ]
    return np.concatenate([*at_seams, np.empty(0)]), np.concatenate([*inside, np.empty(0)])


def executed(chunks: Iterable[tuple[ActionChunk, int]]) -> list[list[Array]]:
    """The actions (n, A) of each chunk that an executor plays which always takes the newest one.

    Args:
        chunks: in their order, each with the time in nanoseconds at which it came out.
    Returns:
        runs of chunks that follow each other without a pause, at the same dt.
    """
    played = list(chunks)
    runs: list[list[Array]] = [[]]
    for number, (chunk, out_ns) in enumerate(played):
        first = max(math.ceil((out_ns - chunk.stamp_ns) / chunk.dt_ns), 0)
        due, pauses = len(chunk.actions), True
        if number + 1 < len(played):
            after, after_ns = played[number + 1]
            due = math.ceil((after_ns - chunk.stamp_ns) / chunk.dt_ns)
            pauses = due > len(chunk.actions) or after.dt_ns != chunk.dt_ns
        actions = chunk.actions[first : max(due, first)]
        if len(actions):
            runs[-1].append(actions)
        if pauses:
            runs.append([])
    return [run for run in runs if run]


def _jumps_of(actions: Array, order: int, dt_s: float, coordinates: Coordinates) -> Array:
    """Jumps at all places with `order` actions (n, A) on either side: (n - 2 order + 1,)."""
    steps = coordinates.difference(actions[1:], actions[:-1])
    changes = np.linalg.norm(np.diff(steps, order - 1, axis=0), axis=1) / dt_s ** (order - 1)
    spanning = np.lib.stride_tricks.sliding_window_view(changes, order)
    return np.asarray(spanning.max(axis=1))
