"""Chunks for tests: step k is at T0 + k DT."""

from __future__ import annotations

import numpy as np

from para_policy.execution.chunk import ActionChunk

T0 = 1_700_000_000 * 10**9
DT = 100_000_000


def make_chunk(step: int = 0, steps: int = 8, dim: int = 2, tag: float = 0.0) -> ActionChunk:
    """A chunk from control step `step` on; each action says its own step and `tag`."""
    due = np.arange(step, step + steps, dtype=float)
    rows = np.stack([due, *[np.full(steps, tag)] * (dim - 1)], axis=1)
    return ActionChunk(T0 + step * DT, DT, rows)


def at(step: float) -> int:
    return T0 + round(step * DT)
