"""Player of action chunks by absolute time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.execution.blending import (
    Blending,
    Candidate,
    Interpolation,
    NoBlending,
    action_between,
)
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import UNKNOWN, Coordinates

_MOST_CHUNKS = 100
"""Most chunks that are mixed, however fast they come."""


@dataclass(frozen=True)
class PlayerSettings:
    """Everything that decides how chunks are played.

    Attributes:
        offset_ns: action i is due at stamp + i dt + offset. Negative: commanded earlier, by the
            time that the robot takes to follow.
        max_age_ns: no action is played later than this after its chunk's observation; None: no
            limit.
        catch_up: a chunk whose actions are all past is not refused: its last action is due on
            the next step of the chunk's grid (the "over budget" rule of the original project).
        interpolation: hold each action until the next is due, or move linearly towards it.
        blending: how a chunk takes over from those before it.
        coordinates: what they mean; unknown ones are played without mixing.
    """

    offset_ns: int = 0
    max_age_ns: int | None = None
    catch_up: bool = False
    interpolation: Interpolation = "none"
    blending: Blending = field(default_factory=NoBlending)
    coordinates: Coordinates = UNKNOWN


class ChunkPlayer:
    """The chunks in force, and the action of them that is due. Not thread-safe.

    A newer chunk replaces the one in force at once, or as the blending says; actions that are
    already past are never played. Where nothing is due the answer is None and the robot holds: a
    command is never repeated beyond its time, nor invented. When the clock steps back (a
    simulation restarts) the chunks in force belong to another world and are forgotten.

    Args:
        action_dim: A; None lets the first chunk decide.
    """

    def __init__(
        self, action_dim: int | None = None, settings: PlayerSettings | None = None
    ) -> None:
        self._action_dim = action_dim
        self._settings = settings or PlayerSettings()
        self._candidates: list[Candidate] = []
        self._now_ns: int | None = None
        self.caught_up = 0
        """Chunks that came so late that only their last action was left."""

    @property
    def chunk(self) -> ActionChunk | None:
        """The newest chunk, which may have run out."""
        return self._candidates[-1].chunk if self._candidates else None

    def age_ns(self, now_ns: int) -> int | None:
        """Time since the observation that the newest chunk was planned for."""
        return now_ns - self._candidates[-1].observed_ns if self._candidates else None

    def clear(self) -> None:
        """Forget all chunks: nothing is due until the next one comes."""
        self._candidates.clear()

    def offer(self, chunk: ActionChunk, now_ns: int) -> None:
        """Put `chunk` in force, or refuse it; after a refusal the old chunk is still in force.

        Raises:
            InputError: when the chunk has another dimension, is older than the one in force or
                than `max_age_ns`, has run out already, is stamped more than its own length ahead
                of the clock, or has not the coordinates of the settings.
        """
        self._advance(now_ns)
        observed_ns, time_ns = chunk.stamp_ns, now_ns - self._settings.offset_ns
        self._check(chunk, now_ns)
        chunk = self._settings.coordinates.prepare(chunk)
        if chunk.end_ns <= time_ns:
            chunk = self._catch_up(chunk, time_ns)
        self._action_dim = chunk.action_dim
        self._add(chunk, observed_ns, time_ns)

    def action_at(self, now_ns: int) -> NDArray[np.float64] | None:
        """The action (A,) that is due at `now_ns`; None means hold."""
        self._advance(now_ns)
        time_ns = now_ns - self._settings.offset_ns
        self._forget_overruled(time_ns)
        values = [
            (candidate, action)
            for candidate in self._candidates
            if not self._is_old(candidate.observed_ns, now_ns)
            and (action := self._action_of(candidate.chunk, time_ns)) is not None
        ]
        if not values:
            return None
        return self._settings.blending.blend(values, time_ns, self._settings.coordinates)

    def _action_of(self, chunk: ActionChunk, time_ns: int) -> NDArray[np.float64] | None:
        settings = self._settings
        return action_between(chunk, time_ns, settings.interpolation, settings.coordinates)

    def _check(self, chunk: ActionChunk, now_ns: int) -> None:
        time_ns = now_ns - self._settings.offset_ns
        if self._action_dim is not None and chunk.action_dim != self._action_dim:
            raise InputError(f"chunk has {chunk.action_dim} joints, expected {self._action_dim}")
        if self._candidates and chunk.stamp_ns < self._candidates[-1].observed_ns:
            older = (self._candidates[-1].observed_ns - chunk.stamp_ns) / 1e9
            raise InputError(f"chunk is {older:.3f} s older than the one in force")
        if self._is_old(chunk.stamp_ns, now_ns):
            limit = (self._settings.max_age_ns or 0) / 1e9
            raise InputError(
                f"chunk is too old: it was observed {(now_ns - chunk.stamp_ns) / 1e9:.3f} s ago, "
                f"expected at most {limit:g} s"
            )
        if chunk.stamp_ns - time_ns > chunk.end_ns - chunk.stamp_ns:
            ahead = (chunk.stamp_ns - time_ns) / 1e9
            raise InputError(f"chunk starts {ahead:.3f} s in the future; do the clocks agree?")

    def _is_old(self, observed_ns: int, now_ns: int) -> bool:
        limit_ns = self._settings.max_age_ns
        return limit_ns is not None and now_ns - observed_ns > limit_ns

    def _catch_up(self, chunk: ActionChunk, time_ns: int) -> ActionChunk:
        """The last action alone, on the next step of the grid.

        A chunk that is sent twice must not be played twice.
        """
        known = self._candidates and chunk.stamp_ns == self._candidates[-1].observed_ns
        if known or not self._settings.catch_up:
            late = (time_ns - chunk.end_ns) / 1e9
            raise InputError(f"chunk came too late: its last action ended {late:.3f} s ago")
        self.caught_up += 1
        steps = -((chunk.stamp_ns - time_ns) // chunk.dt_ns)
        stamp_ns = chunk.stamp_ns + steps * chunk.dt_ns
        return replace(chunk, stamp_ns=stamp_ns, actions=chunk.actions[-1:])

    def _add(self, chunk: ActionChunk, observed_ns: int, time_ns: int) -> None:
        if self._candidates and observed_ns == self._candidates[-1].observed_ns:
            self._candidates[-1] = replace(self._candidates[-1], chunk=chunk)  # sent again
            return
        if not self._settings.blending.keeps_old_chunks:
            self._candidates.clear()
        joined_ns = max(time_ns, chunk.stamp_ns)
        fade_ns = max(self._last_ns() - joined_ns, 0) if self._candidates else 0
        if (longest_ns := self._settings.blending.fade_ns) is not None:
            fade_ns = min(fade_ns, longest_ns)
        self._candidates.append(Candidate(chunk, observed_ns, joined_ns, fade_ns))
        del self._candidates[:-_MOST_CHUNKS]

    def _last_ns(self) -> int:
        """The time until which the newest chunk is played: it ends then, or is too old."""
        newest, settings = self._candidates[-1], self._settings
        if settings.max_age_ns is None:
            return newest.chunk.end_ns
        oldest_ns = newest.observed_ns + settings.max_age_ns - settings.offset_ns
        return min(newest.chunk.end_ns, oldest_ns)

    def _forget_overruled(self, time_ns: int) -> None:
        """An older chunk may outlast a newer one, and must not come back when that one has ended."""
        for index in reversed(range(len(self._candidates))):
            if self._candidates[index].overrules(time_ns):
                del self._candidates[:index]
                return

    def _advance(self, now_ns: int) -> None:
        if self._now_ns is not None and now_ns < self._now_ns:
            self.clear()
        self._now_ns = now_ns
