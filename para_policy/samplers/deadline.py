"""Deadlines: when a solve must end, how long a network call takes, and whether one more fits."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from para_policy.errors import InputError

_LEAST_S = 0.05


@dataclass(frozen=True)
class LatencyTable:
    """Measured seconds of one network call against its number of rows.

    >>> LatencyTable((1, 11), (0.004, 0.008)).predict(6)
    0.006
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.seconds) or not self.rows:
            raise InputError(
                f"{len(self.rows)} rows and {len(self.seconds)} times; expected as many"
            )
        if sorted(set(self.rows)) != list(self.rows) or self.rows[0] < 1:
            raise InputError(f"rows are {self.rows}; expected increasing numbers from 1")
        if not all(math.isfinite(value) and value > 0 for value in self.seconds):
            raise InputError(f"seconds are {self.seconds}; expected numbers above 0")

    def predict(self, rows: float) -> float:
        """Seconds of a call with `rows` rows: linear between measurements, proportional beyond."""
        if rows > self.rows[-1]:
            return self.seconds[-1] * rows / self.rows[-1]
        return float(np.interp(rows, self.rows, self.seconds))

    @classmethod
    def measure(
        cls, call: Callable[[int], object], rows: tuple[int, ...], repeats: int = 7
    ) -> LatencyTable:
        """Time `call(n)` for every number of rows; it must return when the work is done.

        At least `repeats` calls, and a twentieth of a second of them. Their median is kept, made
        non-decreasing: more rows never cost less.
        """
        seconds = []
        for n in rows:
            call(n)
            times: list[float] = []
            while len(times) < repeats or sum(times) < _LEAST_S:
                start = time.perf_counter()
                call(n)
                times.append(time.perf_counter() - start)
            seconds.append(float(np.median(times)))
        return cls(rows, tuple(np.maximum.accumulate(seconds).tolist()))


@dataclass(frozen=True)
class Deadline:
    """A point in time that a solve must not pass.

    Attributes:
        at: seconds of `time.monotonic`.
        latency: of the network on this device; without it a round is assumed to take as long as
            the slowest one so far.
    """

    at: float
    latency: LatencyTable | None = None

    @classmethod
    def after(
        cls, seconds: float, latency: LatencyTable | None = None, *, reserve: float = 0.0
    ) -> Deadline:
        """`seconds` from now.

        Args:
            reserve: share of them, in [0, 1), to end earlier.

        Raises:
            InputError: unless seconds is a number above 0.
        """
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not (number and 0 < seconds <= sys.float_info.max):
            raise InputError(f"deadline is {seconds!r} s; expected a number above 0")
        return cls(time.monotonic() + (1 - reserve) * seconds, latency)


class Pace:
    """Time keeping during one solve.

    A latency table knows the network but not the machine's mood, nor the work around the network:
    the largest ratio of measured to predicted time so far corrects it.

    A round lasts until the next one is asked for: to know what to run next the host has read its
    result, and so has waited for a device that still worked when the round had been launched.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._slowest = 0.0
        self._ratio = 1.0
        self._running: tuple[float, int, int] | None = None

    def admits(self, rows: int, calls: int = 1) -> bool:
        """True if a round of `calls` network calls with `rows` rows each ends in time; it begins now.
        The first round always does: without it there is no answer at all."""
        now, table = time.monotonic(), self._deadline.latency
        if self._running is not None:
            self._learn(now, *self._running)
        self._running = now, rows, calls
        if self._slowest == 0.0:
            return True
        expected = self._slowest if table is None else self._ratio * table.predict(rows)
        return now + calls * expected <= self._deadline.at

    def _learn(self, now: float, started: float, rows: int, calls: int) -> None:
        """A round of so many rows and calls is over."""
        taken = (now - started) / calls
        self._slowest = max(self._slowest, taken)
        if self._deadline.latency is not None:
            self._ratio = max(self._ratio, taken / self._deadline.latency.predict(rows))
