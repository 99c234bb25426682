"""Does one more round fit before the deadline?"""

from __future__ import annotations

import time

from para_policy.samplers.deadline import Deadline


class Pace:
    """Keeps time during one solve.

    A latency table knows the network but not the machine's mood, nor the work around the network:
    the largest ratio of measured to predicted time so far corrects it.
    """

    def __init__(self, deadline: Deadline | None) -> None:
        self._deadline = deadline
        self._slowest = 0.0
        self._ratio = 1.0
        self._started = 0.0

    def fits(self, rows: int, calls: int = 1) -> bool:
        """True if a round of `calls` network calls with `rows` rows each ends in time. The first round
        always fits: without it there is no answer at all."""
        if self._deadline is None or self._slowest == 0.0:
            return True
        table = self._deadline.latency
        expected = self._slowest if table is None else self._ratio * table.predict(rows)
        return time.monotonic() + calls * expected <= self._deadline.at

    def start(self) -> None:
        self._started = time.monotonic()

    def stop(self, rows: int, calls: int = 1) -> None:
        taken = (time.monotonic() - self._started) / calls
        self._slowest = max(self._slowest, taken)
        if self._deadline is not None and self._deadline.latency is not None:
            self._ratio = max(self._ratio, taken / self._deadline.latency.predict(rows))
