"""Blending of chunks: one action from several of them, where an old one gives way to a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk
from para_policy.execution.coordinates import Coordinates

Array = NDArray[np.float64]
Interpolation = Literal["none", "linear"]


def action_between(
    chunk: ActionChunk, time_ns: int, interpolation: Interpolation, coordinates: Coordinates
) -> Array | None:
    """The action (A,) at `time_ns`: held until the next is due, or on the way to it.

    The last action is held for its dt either way. At the very time that an action is due both
    answers are that action, bit for bit. None before the first action and after the end.
    """
    if interpolation == "none" or not chunk.covers(time_ns):
        return chunk.action_at(time_ns)
    index, rest_ns = divmod(time_ns - chunk.stamp_ns, chunk.dt_ns)
    if rest_ns == 0 or index + 1 == len(chunk.actions):
        return chunk.action_at(time_ns)
    part = rest_ns / chunk.dt_ns
    return coordinates.interpolate(chunk.actions[index], chunk.actions[index + 1], part)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A chunk that may be played.

    Attributes:
        observed_ns: time of the observation that the chunk was planned for.
        joined_ns: time from which on it plays a part.
        fade_ns: time from then on for which the chunks before it do, too; the one just before it
            lasts as long.
    """

    chunk: ActionChunk
    observed_ns: int
    joined_ns: int
    fade_ns: int

    def overrules(self, time_ns: int) -> bool:
        """True where the chunks before it play no part any more, whatever they still have."""
        return time_ns >= min(self.joined_ns + self.fade_ns, self.chunk.end_ns)


class Blending(Protocol):
    """Rule by which the actions of several chunks become one."""

    @property
    def keeps_old_chunks(self) -> bool: ...

    @property
    def fade_ns(self) -> int | None:
        """Longest fade of a candidate; None: as long as the one before it lasts."""
        ...

    def blend(
        self, values: Sequence[tuple[Candidate, Array]], time_ns: int, coordinates: Coordinates
    ) -> Array:
        """One action (A,) from those of the candidates that have one, oldest first, at least one.

        No candidate but the first overrules those before it.
        """
        ...


class NoBlending:
    """The newest chunk alone."""

    keeps_old_chunks = False
    fade_ns = 0

    def blend(
        self, values: Sequence[tuple[Candidate, Array]], time_ns: int, coordinates: Coordinates
    ) -> Array:
        return values[-1][1]


@dataclass(frozen=True)
class CrossFade:
    """A fade from the old chunk to the new one in `fade_ns`, or less where the old one ends earlier."""

    fade_ns: int
    keeps_old_chunks = True

    def blend(
        self, values: Sequence[tuple[Candidate, Array]], time_ns: int, coordinates: Coordinates
    ) -> Array:
        blended = values[0][1]
        for candidate, value in values[1:]:
            part = (time_ns - candidate.joined_ns) / candidate.fade_ns
            blended = coordinates.mean([blended, value], [1.0 - part, part])
        return blended


@dataclass(frozen=True)
class TemporalEnsemble:
    """Mean of all chunks that cover the time, weighted with `exp(-coefficient i)`, oldest i = 0.

    A chunk that outlasts a newer one plays no part from the end of that one on.

    A positive coefficient trusts the oldest chunk most, a negative one the newest, as in ACT
    (Zhao et al., 2023), which used 0.01. The mean of two different good ways around an obstacle
    leads into it: a multimodal policy should rather be cross-faded.
    """

    coefficient: float
    keeps_old_chunks = True
    fade_ns = None

    def blend(
        self, values: Sequence[tuple[Candidate, Array]], time_ns: int, coordinates: Coordinates
    ) -> Array:
        exponents = -self.coefficient * np.arange(len(values))
        weights = np.exp(exponents - exponents.max())  # of which none overflows
        return coordinates.mean([value for _, value in values], weights)
