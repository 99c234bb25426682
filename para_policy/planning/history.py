"""Observations by time stamp, as the policy was trained to see them."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.coordinates import UNKNOWN, Coordinates

_LONGEST_LAG_NS = 10 * 10**9
"""Time by which one input may run ahead of another: more would only fill the memory with images."""


class _Stream:
    """Samples of one input, sorted by stamp.

    Args:
        shape: of a sample.
        linear: true where values are interpolated, as far as `coordinates` say how.
    """

    def __init__(
        self, shape: tuple[int, ...], max_gap_ns: int, coordinates: Coordinates, *, linear: bool
    ) -> None:
        self.max_gap_ns = max_gap_ns
        self.coordinates = coordinates
        told = coordinates.told(math.prod(shape)).reshape(shape)
        self._mixed = told if linear else np.zeros((), bool)
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

    def sample(self, wanted_ns: Sequence[int]) -> NDArray[Any]:
        """Observations (To, *shape) for these times, oldest first."""
        nearest = np.stack(
            [self.values[bisect_left(self.stamps, time)] for time in self._nearest(wanted_ns)]
        )
        if not self._mixed.any():
            return nearest
        return np.where(self._mixed, [self._between(time) for time in wanted_ns], nearest)

    def times(self, wanted_ns: Sequence[int]) -> list[int]:
        """The times of which `sample` tells; those of the values that are not mixed where some are."""
        if self._mixed.all():
            return [min(max(time, self.stamps[0]), self.stamps[-1]) for time in wanted_ns]
        return self._nearest(wanted_ns)

    def _between(self, time_ns: int) -> NDArray[Any]:
        """What lies between the samples around `time_ns`; else the first or the last."""
        index = max(bisect_right(self.stamps, time_ns) - 1, 0)
        value = self.values[index]
        elapsed = time_ns - self.stamps[index]
        if elapsed <= 0 or index + 1 == len(self.stamps):
            return value
        part = elapsed / (self.stamps[index + 1] - self.stamps[index])
        after = self.values[index + 1].ravel()
        return self.coordinates.interpolate(value.ravel(), after, part).reshape(value.shape)

    def _nearest(self, wanted_ns: Sequence[int]) -> list[int]:
        """Stamps of the sample nearest to the newest time, and of those nearest to the others.

        The others are as seen from that sample. So neither jitter nor the phase between two sensors
        decides whether one period or two are between them.
        """
        shift_ns = self._nearest_one(wanted_ns[-1]) - wanted_ns[-1]
        return [self._nearest_one(time + shift_ns) for time in wanted_ns]

    def _nearest_one(self, time_ns: int) -> int:
        """Stamp of the sample nearest to a time, of two the older."""
        index = bisect_left(self.stamps, time_ns)
        around = self.stamps[max(index - 1, 0) : index + 1]
        return min(around, key=lambda stamp_ns: abs(stamp_ns - time_ns))

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
            others, and of values whose coordinates are unknown, the nearest sample counts. Not for images.
        coordinates: of the flat values of inputs, by name; those that are not given are unknown.
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
        coordinates: Mapping[str, Coordinates] | None = None,
        parts: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._parts = dict(parts or {})
        self._shapes = dict(shapes)
        self._n_obs_steps = n_obs_steps
        gaps = {name: (max_gaps_ns or {}).get(name, max_gap_ns) for name in self._shapes}
        told = coordinates or {}
        self._streams = {
            name: _Stream(shape, gaps[name], told.get(name, UNKNOWN), linear=name in linear)
            for name, shape in self._shapes.items()
        }
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
            InputError: when the name is unknown, the shape is wrong or a rotation is none; the history
                is unchanged.
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
        if stream.coordinates.groups:
            try:
                stream.coordinates.canonical(array.ravel())
            except InputError as error:
                raise InputError(f"input {name!r} has {error}") from error
        if stream.stamps and abs(stamp_ns - stream.stamps[-1]) > stream.max_gap_ns:
            stream.clear()
        stream.insert(stamp_ns, array)
        stream.forget_before(stream.stamps[-1] - self._memory_ns)

    def is_straggler(self, name: str, stamp_ns: int, received_ns: int) -> bool:
        """A sample that is too old on arrival, while a newer one of input `name` is not.

        Its stamp steps back as if time had begun again, but tells nothing about now: it is best left
        out.
        """
        stream = self._streams.get(name)
        if stream is None or not stream.stamps:
            return False
        return stamp_ns < received_ns - stream.max_gap_ns <= stream.stamps[-1]

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

    def fault(self, time_ns: int) -> str | None:
        """Reason why there are no observations of `time_ns`; None where there are."""
        if self.missing():
            return f"no observation yet of {', '.join(self.missing())}"
        newest = self.newest_ns()
        slowest = min(newest, key=lambda name: newest[name])
        oldest_ns = self._times(time_ns)[0]
        for name, stream in self._streams.items():
            if stream.forgot and stream.stamps[0] > oldest_ns:
                ahead_s, kept_s = (newest[name] - newest[slowest]) / 1e9, self._memory_ns / 1e9
                return (
                    f"{name} is stamped {ahead_s:.3f} s after {slowest}, and samples are kept for "
                    f"{kept_s:g} s: check the stamps of both"
                )
        return None

    def sample(self, time_ns: int) -> dict[str, NDArray[Any]]:
        """Observations (To, *shape) at `time_ns - k dt`, oldest first.

        The newest of an input is its sample nearest to `time_ns`, and the others are those nearest
        to k dt before that sample; or, where asked for and its coordinates are known, all are
        interpolated. Before the
        first sample the first one is repeated, as at the start of an episode.

        Raises:
            InputError: when an input has no sample at all, or its samples of that time are
                forgotten.
        """
        if fault := self.fault(time_ns):
            raise InputError(fault)
        times = self._times(time_ns)
        seen = {name: stream.sample(times) for name, stream in self._streams.items()}
        for name, parts in self._parts.items():
            seen[name] = np.concatenate([seen.pop(part) for part in parts], axis=1)
        return seen

    def spacing_ns(self, time_ns: int) -> dict[str, int]:
        """Time between two of the observations of `sample`, for each stream the one farthest from dt.

        It is 0 where one sample is seen twice. Before the first sample, which is repeated there, it
        does not count: a stream of which there is nothing else yet is left out.
        """
        wanted = self._times(time_ns)
        found: dict[str, int] = {}
        for name, stream in self._streams.items():
            gaps = [
                after - before
                for (before, after), time in zip(
                    pairwise(stream.times(wanted)), wanted, strict=False
                )
                if stream.forgot or time >= stream.stamps[0]
            ]
            if gaps:
                found[name] = max(gaps, key=lambda gap: abs(gap - self._dt_ns))
        return found

    def _times(self, time_ns: int) -> list[int]:
        return [time_ns - k * self._dt_ns for k in reversed(range(self._n_obs_steps))]


def observation_digest(observation: Mapping[str, NDArray[Any]]) -> str:
    """16 hexadecimal digits that tell whether two observations are equal to the bit."""
    digest = hashlib.sha256()
    for name in sorted(observation):
        value = np.ascontiguousarray(observation[name])
        digest.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]
