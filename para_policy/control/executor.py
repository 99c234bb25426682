"""Playing action chunks by absolute time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from para_policy.control.chunk import ActionChunk
from para_policy.errors import InputError


class ChunkPlayer:
    """Holds the chunk in force and says which action is due. Not thread-safe.

    A newer chunk replaces the one in force at once; actions that are already past are never
    played. Where nothing is due the answer is None and the robot holds: a command is never
    repeated beyond its time, nor invented. When the clock steps back (a simulation restarts) the
    chunk in force belongs to another world and is forgotten.

    Args:
        action_dim: A; None lets the first chunk decide.
    """

    def __init__(self, action_dim: int | None = None) -> None:
        self._action_dim = action_dim
        self._chunk: ActionChunk | None = None
        self._now_ns: int | None = None
        self._answered_ns: int | None = None

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk in force, which may have run out."""
        return self._chunk

    def offer(self, chunk: ActionChunk, now_ns: int) -> None:
        """Put `chunk` in force, or refuse it; after a refusal the old chunk is still in force.

        Raises:
            InputError: when the chunk has another dimension, is older than the one in force, has
                run out already, or is stamped more than its own length ahead of the clock.
        """
        self._advance(now_ns)
        if self._action_dim is not None and chunk.action_dim != self._action_dim:
            raise InputError(f"chunk has {chunk.action_dim} joints, expected {self._action_dim}")
        if self._chunk is not None and chunk.stamp_ns < self._chunk.stamp_ns:
            older = (self._chunk.stamp_ns - chunk.stamp_ns) / 1e9
            raise InputError(f"chunk is {older:.3f} s older than the one in force")
        if chunk.end_ns <= now_ns:
            late = (now_ns - chunk.end_ns) / 1e9
            raise InputError(f"chunk came too late: its last action ended {late:.3f} s ago")
        if chunk.stamp_ns - now_ns > chunk.end_ns - chunk.stamp_ns:
            ahead = (chunk.stamp_ns - now_ns) / 1e9
            raise InputError(f"chunk starts {ahead:.3f} s in the future; do the clocks agree?")
        self._action_dim = chunk.action_dim
        self._chunk = chunk

    def action_at(self, now_ns: int) -> NDArray[np.float64] | None:
        """The action (A,) that is due at `now_ns`; None means hold."""
        self._advance(now_ns)
        return None if self._chunk is None else self._chunk.action_at(now_ns)

    def answer_tick(self, tick_ns: int) -> NDArray[np.float64] | None:
        """Like `action_at`, but at most one action for each tick of a simulated clock.

        In lockstep the simulator counts commands: a second one for the same tick would be taken
        for the answer to the next.
        """
        if self._answered_ns == tick_ns:
            return None
        action = self.action_at(tick_ns)
        if action is not None:
            self._answered_ns = tick_ns
        return action

    def _advance(self, now_ns: int) -> None:
        if self._now_ns is not None and now_ns < self._now_ns:
            self._chunk = None
        self._now_ns = now_ns
