"""Observations by time stamp, as the policy was trained to see them."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError, NonFiniteError

_LONGEST_LAG_NS = 10 * 10**9
"""Time by which one input may run ahead of another: more would only fill the memory with images."""


class _Stream:
    """Samples of one input, sorted by stamp."""

    def __init__(self, max_gap_ns: int, *, linear: bool) -> None:
        self.max_gap_ns = max_gap_ns
        self.linear = linear
        self.clear()

    def clear(self) -> None:
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
        """The last sample not after `time_ns`, or a mixture of it and the next; else the first."""
        index = max(bisect_right(self.stamps, time_ns) - 1, 0)
        value = self.values[index]
        elapsed = time_ns - self.stamps[index]
        if not self.linear or elapsed <= 0 or index + 1 == len(self.stamps):
            return value
        part = elapsed / (self.stamps[index + 1] - self.stamps[index])
        mixture: NDArray[Any] = (1 - part) * value + part * self.values[index + 1]
        return mixture

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
        max_gaps_ns: the same for single inputs, by name.
        linear: inputs whose values at a time are interpolated between the samples around it; of the
            others the last sample not after it counts. Not for images.
        parts: inputs that are put together from several of `shapes`, one after the other: the names
            of these, in order. Each is looked up by its own stamps.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        n_obs_steps: int,
        dt_ns: int,
        max_gap_ns: int,
        *,
        max_gaps_ns: Mapping[str, int] | None = None,
        linear: Collection[str] = (),
        parts: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._parts = dict(parts or {})
        self._shapes = dict(shapes)
        self._n_obs_steps = n_obs_steps
        gaps = {name: (max_gaps_ns or {}).get(name, max_gap_ns) for name in self._shapes}
        self._streams = {n: _Stream(gap, linear=n in linear) for n, gap in gaps.items()}
        self._lag_ns = min(max(gaps.values(), default=0), _LONGEST_LAG_NS)
        self.set_dt(dt_ns)

    def set_dt(self, dt_ns: int) -> None:
        """Change the time between the observations that the policy sees; samples are kept."""
        self._dt_ns = dt_ns
        self._memory_ns = self._lag_ns + self._n_obs_steps * dt_ns

    def clear(self) -> None:
        for stream in self._streams.values():
            stream.clear()

    def append(self, name: str, stamp_ns: int, value: ArrayLike) -> None:
        """Add a copy of one observation of input `name`, in physical units or pixels.

        One that comes late is sorted in by its stamp; of several with the same stamp the last counts.

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
        if stream.stamps and abs(stamp_ns - stream.stamps[-1]) > stream.max_gap_ns:
            stream.clear()
        stream.insert(stamp_ns, array)
        stream.forget_before(stream.stamps[-1] - self._memory_ns)

    def missing(self) -> list[str]:
        """Names of the inputs that have no sample yet."""
        return [name for name, stream in self._streams.items() if not stream.stamps]

    def newest_common_ns(self) -> int | None:
        """The newest time that every input has reached; None until each has a sample."""
        if self.missing():
            return None
        return min(self.newest_ns().values())

    def newest_ns(self) -> dict[str, int]:
        """The newest stamp of each input that has a sample."""
        return {name: s.stamps[-1] for name, s in self._streams.items() if s.stamps}

    def sample(self, time_ns: int) -> dict[str, NDArray[Any]]:
        """Observations (To, *shape) at `time_ns - k dt`, oldest first.

        Each is the last sample not after that time or, where asked for, interpolated linearly.
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
        seen = {
            name: np.stack([stream.at(time) for time in times])
            for name, stream in self._streams.items()
        }
        for name, parts in self._parts.items():
            seen[name] = np.concatenate([seen.pop(part) for part in parts], axis=1)
        return seen


def observation_digest(observation: Mapping[str, NDArray[Any]]) -> str:
    """16 hexadecimal digits that tell whether two observations are equal to the bit."""
    digest = hashlib.sha256()
    for name in sorted(observation):
        value = np.ascontiguousarray(observation[name])
        digest.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]
