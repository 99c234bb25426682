"""When the chunk before is a good start for the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_TOLERANCE = 0.25
"""Part of a step by which stamps may differ from whole steps: sensors do not tick exactly."""


@dataclass(frozen=True)
class Start:
    """What a solve can start from.

    Attributes:
        result: of the policy for the chunk before.
        stamp_ns, dt_ns, actions: of that chunk: its time, its step, and how many it has.
    """

    result: Any
    stamp_ns: int
    dt_ns: int
    actions: int

    def executed(self, stamp_ns: int, dt_ns: int) -> int | None:
        """Whole steps of `dt_ns` from the chunk to `stamp_ns`.

        Returns:
            None where it is no start: the time between steps has changed, the time between the
            chunks is not a number of steps, or none of its actions reaches that far.
        """
        elapsed_ns = stamp_ns - self.stamp_ns
        steps = round(elapsed_ns / dt_ns)
        off = abs(elapsed_ns - steps * dt_ns) > _TOLERANCE * dt_ns
        if dt_ns != self.dt_ns or off or not 0 <= steps < len(self.result.sample):
            return None
        return steps
