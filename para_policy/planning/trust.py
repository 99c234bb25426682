"""Trust in the chunks of one robot: whether they come in time, and whether they are accurate enough."""

from __future__ import annotations

from typing import Any

from para_policy.planning.settings import PlannerSettings


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

    def reason(self, settings: PlannerSettings) -> str | None:
        """Reason not to publish chunks; None where there is none."""
        if not 0 < settings.max_overruns <= self.in_a_row:
            return None
        return (
            f"{settings.max_overruns} chunks in a row took longer than deadline_ms = "
            f"{1e3 * settings.deadline_s:g}; one in time or ~/reset ends this"
        )


class Accuracy:
    """Remembers how accurate the last chunk is, and counts those that did not converge. Not thread-safe.

    Attributes:
        unconverged: chunks since the last one that converged.
    """

    def __init__(self) -> None:
        self.forgive()

    def forgive(self) -> None:
        """Begin a new row."""
        self.unconverged = 0
        self._residual = self._bound = 0.0

    def count(self, stats: Any) -> None:
        """Count a chunk by what the policy says of it, see `SampleStats`."""
        self.unconverged = 0 if stats.converged else self.unconverged + 1
        self._residual, self._bound = float(stats.residual), float(stats.error_bound.max())

    def reason(self, settings: PlannerSettings) -> str | None:
        """Reason not to publish the last chunk; None where there is none."""
        if settings.max_residual and not self._residual <= settings.max_residual:
            return self._excess("residual", self._residual, "max_residual", settings.max_residual)
        if settings.max_error and not self._bound <= settings.max_error:
            return self._excess("error bound", self._bound, "max_error", settings.max_error)
        return None

    def warning(self, settings: PlannerSettings) -> str | None:
        """What is to be said of a row of chunks that did not converge; None where it is short."""
        if not 0 < settings.max_unconverged <= self.unconverged:
            return None
        return (
            f"{self.unconverged} chunks in a row did not converge: residual {self._residual:.3g}, "
            f"error bound {self._bound:.3g}; give deadline_ms more time, or use a faster sampler"
        )

    def _excess(self, what: str, value: float, parameter: str, limit: float) -> str:
        """NaN is an excess, too: nobody knows how wrong such a chunk is."""
        return (
            f"the {what} of the chunk is {value:.3g}, {parameter} is {limit:g}; the first chunk "
            "within it or ~/reset ends this"
        )
