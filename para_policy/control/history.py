"""Observations by time stamp, as the policy was trained to see them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError, NonFiniteError

_LONGEST_LAG_NS = 10 * 10**9
"""How far one input may run ahead of another: more would only fill the memory with images."""


class _Stream:
    """Samples of one input, sorted by stamp."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.values: list[NDArray[Any]] = []
        self.forgot = False

    def insert(self, stamp_ns: int, value: NDArray[Any]) -> None:
        index = bisect_right(self.stamps, stamp_ns)
        if index and self.stamps[index - 1] == stamp_ns:  # sent again: the later message counts
            self.values[index - 1] = value
            return
        self.stamps.insert(index, stamp_ns)
        self.values.insert(index, value)

    def at(self, time_ns: int) -> NDArray[Any]:
        return self.values[max(bisect_right(self.stamps, time_ns) - 1, 0)]

    def forget_before(self, time_ns: int) -> None:
        """Drop what no later question can need: all but the last sample not after `time_ns`."""
        keep_from = max(bisect_right(self.stamps, time_ns) - 1, 0)
        self.forgot |= keep_from > 0
        del self.stamps[:keep_from], self.values[:keep_from]


class ObservationHistory:
    """The last samples of each input, looked up by the time they were taken, not by arrival.

    A policy trained on observations `dt` apart must see them `dt` apart, whatever the rate and
    the delay of each sensor. Values are float64, or uint8 where they come so: images take an eighth
    of the memory. Not thread-safe.

    Args:
        shapes: shape of one observation of each input.
        n_obs_steps: To, number of observations that the policy sees.
        dt_ns: time between them, in nanoseconds.
        max_gap_ns: a stream that was silent for longer, or that steps back by more, starts anew:
            what lies before the gap says nothing about the present. Samples are kept for this
            long, but not for more than ten seconds, beyond the times that the policy sees.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], n_obs_steps: int, dt_ns: int, max_gap_ns: int
    ) -> None:
        self._shapes = dict(shapes)
        self._n_obs_steps = n_obs_steps
        self._dt_ns = dt_ns
        self._max_gap_ns = max_gap_ns
        self._memory_ns = min(max_gap_ns, _LONGEST_LAG_NS) + n_obs_steps * dt_ns
        self.clear()

    def clear(self) -> None:
        self._streams = {name: _Stream() for name in self._shapes}

    def append(self, name: str, stamp_ns: int, value: ArrayLike) -> None:
        """Add a copy of one observation of input `name`, in physical units or pixels.

        Raises:
            InputError: when the name is unknown or the shape is wrong; the history is unchanged.
            NonFiniteError: when a value is NaN or infinite; the history is unchanged.
        """
        if name not in self._shapes:
            raise InputError(f"there is no input {name!r}; the policy has {sorted(self._shapes)}")
        given = np.asarray(value)
        kind = np.uint8 if given.dtype == np.uint8 else np.float64
        array: NDArray[Any] = np.array(given, dtype=kind, order="C")
        if array.shape != self._shapes[name]:
            raise InputError(
                f"input {name!r} has shape {array.shape}, expected {self._shapes[name]}"
            )
        if kind is np.float64 and not np.isfinite(array).all():
            raise NonFiniteError(f"input {name!r} holds NaN or infinity")
        stream = self._streams[name]
        if stream.stamps and abs(stamp_ns - stream.stamps[-1]) > self._max_gap_ns:
            stream = self._streams[name] = _Stream()
        stream.insert(stamp_ns, array)
        stream.forget_before(stream.stamps[-1] - self._memory_ns)

    def missing(self) -> list[str]:
        """Names of the inputs that have no sample yet."""
        return [name for name, stream in self._streams.items() if not stream.stamps]

    def newest_common_ns(self) -> int | None:
        """The newest time that every input has reached; None until each has a sample."""
        if self.missing():
            return None
        return min(stream.stamps[-1] for stream in self._streams.values())

    def sample(self, time_ns: int) -> dict[str, NDArray[Any]]:
        """Observations (To, *shape) at `time_ns - k dt`, oldest first: the last sample not after each.

        Before the first sample the first one is repeated, as at the start of an episode.

        Raises:
            InputError: when an input has no sample at all, or its samples of that time are
                forgotten.
        """
        if self.missing():
            raise InputError(f"no observation yet of {', '.join(self.missing())}")
        times = [time_ns - k * self._dt_ns for k in reversed(range(self._n_obs_steps))]
        ahead = [n for n, s in self._streams.items() if s.forgot and s.stamps[0] > times[0]]
        if ahead:
            raise InputError(
                f"{', '.join(ahead)} ran ahead of the other inputs by more than "
                f"{self._memory_ns / 1e9:g} s; check the stamps of all publishers"
            )
        return {
            name: np.stack([stream.at(time) for time in times])
            for name, stream in self._streams.items()
        }
