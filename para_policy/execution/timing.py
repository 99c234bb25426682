"""Timing of commands: how regularly they go out."""

from __future__ import annotations

from collections import deque

import numpy as np

_WINDOW = 1000


class CommandTiming:
    """Rate of commands and jitter of the periods, over the last thousand periods.

    Args:
        period_s: time that should lie between periods.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._periods: deque[tuple[float, bool]] = deque(maxlen=_WINDOW)

    def record(self, time_s: float, *, sent: bool) -> None:
        """A period at `time_s` of a steady clock, with or without a command."""
        self._periods.append((time_s, sent))

    def values(self) -> dict[str, float]:
        """For diagnostics: commands per second; deviation of the periods, milliseconds."""
        keys = ("measured_rate_hz", "jitter_ms_p50", "jitter_ms_p95", "jitter_ms_p99")
        if len(self._periods) < 2:
            return dict.fromkeys(keys, float("nan"))
        times = np.array([time for time, _ in self._periods])
        sent = sum(sent for _, sent in list(self._periods)[1:])
        jitter = 1e3 * np.abs(np.diff(times) - self._period_s)
        numbers = [sent / (times[-1] - times[0]), *np.percentile(jitter, (50, 95, 99))]
        return dict(zip(keys, map(float, numbers), strict=True))
