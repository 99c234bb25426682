"""Sensors that go on sending the same values with new stamps: a hung driver, a camera that stands still."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.coordinates import UNKNOWN, Coordinates


class StuckWatch:
    """Time for which one input has had exactly the same values, by the stamps of its samples.

    Noise changes the last digit of almost every sensor; one that repeats itself to the bit is
    either broken or, where it is simulated or coarse, looks at something that stands still. So this
    is a choice for each input. Not thread-safe.

    Args:
        max_unchanged_s: values that stay the same for longer count as stuck.
        coordinates: of the flat values: a quaternion and its negative are the same.
    """

    def __init__(self, max_unchanged_s: float, coordinates: Coordinates = UNKNOWN) -> None:
        self._limit_ns = round(1e9 * max_unchanged_s)
        self._coordinates = coordinates
        self.clear()

    def clear(self) -> None:
        """Forget all samples, as at the start of an episode."""
        self._values: NDArray[Any] | None = None
        self._since_ns = self._newest_ns = 0

    def seen(self, stamp_ns: int, values: NDArray[Any]) -> None:
        """Take note of a sample; a copy is kept where it differs from the one before.

        One that is not newer than the newest says nothing about now and is skipped, unless time
        has gone back by more than the limit: a simulation or a bag that begins again.

        Args:
            values: any shape, numbers or pixels.
        """
        behind_ns = self._newest_ns - stamp_ns
        restarted = self._values is None or behind_ns > self._limit_ns
        if not restarted and behind_ns >= 0:
            return
        # Two images are compared in the time that it takes to read them; a hash takes longer.
        same = self._values is not None and self._coordinates.same(values, self._values)
        if restarted or not same:
            self._values = np.array(values)
            self._since_ns = stamp_ns
        self._newest_ns = stamp_ns

    def stuck_for_s(self) -> float | None:
        """Seconds for which the values have been the same; None within the limit."""
        unchanged_ns = self._newest_ns - self._since_ns
        return unchanged_ns / 1e9 if unchanged_ns > self._limit_ns else None
