"""Chunks that come out after their deadline."""

from __future__ import annotations


class Overruns:
    """Counts late chunks, and those in a row. Not thread-safe.

    Attributes:
        total: late chunks so far.
        in_a_row: since the last one in time.
    """

    def __init__(self) -> None:
        self.total = 0
        self.in_a_row = 0

    def count(self, latency_s: float, deadline_s: float) -> None:
        """Count a chunk that took `latency_s`; a deadline of 0 is always met."""
        late = 0 < deadline_s < latency_s
        self.total += late
        self.in_a_row = self.in_a_row + 1 if late else 0

    def forgive(self) -> None:
        """Begin a new row."""
        self.in_a_row = 0

    def too_many(self, limit: int) -> bool:
        """Whether `limit` or more were late in a row; never for 0."""
        return 0 < limit <= self.in_a_row


def time_to_solve(deadline_s: float, spent_s: float) -> float:
    """Seconds that a solve may take so that its chunk is out `deadline_s` after planning began.

    A tenth, but at most two milliseconds, is left for copying the result and making the message.
    What remains is never 0 or less: a solve always makes one round, as there is no answer without.
    """
    reserve_s = min(0.1 * deadline_s, 0.002)
    return max(deadline_s - spent_s - reserve_s, 1e-6)
