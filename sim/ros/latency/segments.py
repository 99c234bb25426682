"""Segments of played actions by the chunk that they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from para_policy.errors import ParaPolicyError
from sim.tasks.task import Array


def segments(played: Array, chunks: Sequence[Array]) -> list[tuple[int, int, int]]:
    """Which chunk each of the actions came from that a robot has played.

    An action that two chunks have in common, as real-time chunking makes them, counts for the older.
    An action that is played again because nothing else was due counts for its chunk.

    Args:
        played: (T, A).
        chunks: (n, A) each, in the order of their arrival.
    Returns:
        runs of actions of one chunk: its number, first action and end, from 0 to T.
    Raises:
        ParaPolicyError: when an action is in none of the chunks.
    """
    sources: list[int] = []
    at = 0
    for step, action in enumerate(played):
        number = sources[-1] if sources else 0
        place = _find(chunks[number][at:], action) if number < len(chunks) else None
        if place is not None:
            at += place
        else:
            number, at = _newer(chunks, number + 1, action, step)
        sources.append(number)
    starts = [
        step for step in range(len(sources)) if step == 0 or sources[step] != sources[step - 1]
    ]
    ends = [*starts[1:], len(sources)]
    return [(sources[start], start, end) for start, end in zip(starts, ends, strict=True)]


def _newer(chunks: Sequence[Array], first: int, action: Array, step: int) -> tuple[int, int]:
    for number in range(first, len(chunks)):
        place = _find(chunks[number], action)
        if place is not None:
            return number, place
    raise ParaPolicyError(
        f"action {step} of the episode, {action.tolist()}, is in none of the {len(chunks)} chunks "
        "that were heard"
    )


def _find(chunk: Array, action: Array) -> int | None:
    found = np.flatnonzero((chunk == action).all(axis=1))
    return int(found[0]) if len(found) else None
