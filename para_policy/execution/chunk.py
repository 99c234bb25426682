"""A chunk of actions placed on the clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError, NonFiniteError

UNKNOWN_ID = -1


@dataclass(frozen=True, eq=False)
class ActionChunk:
    """Actions that are due one after the other: action i from `stamp + i dt` until `stamp + (i + 1) dt`.

    Times are integer nanoseconds: a float cannot hold today's time to the nanosecond, and
    comparing "is it due" must not depend on rounding.

    Attributes:
        stamp_ns: time of the observation the chunk was planned for; action 0 is due then.
        dt_ns: time between actions.
        actions: (Ta, A) float64, physical units.
        id: index of the chunk in its episode, `UNKNOWN_ID` where it came by a message without one.
    Raises:
        InputError: when the shape is not (Ta, A) or `dt_ns` is not positive.
        NonFiniteError: when an action holds NaN or infinity.
    """

    stamp_ns: int
    dt_ns: int
    actions: NDArray[np.float64]
    id: int = UNKNOWN_ID

    def __post_init__(self) -> None:
        actions = np.array(self.actions, dtype=np.float64)
        if actions.ndim != 2 or 0 in actions.shape:
            raise InputError(
                f"a chunk needs actions of shape (steps, dimension), got {actions.shape}"
            )
        if self.dt_ns <= 0:
            raise InputError(f"the time between actions must be positive, got {self.dt_ns} ns")
        if not np.isfinite(actions).all():
            row = int(np.argwhere(~np.isfinite(actions))[0, 0])
            raise NonFiniteError(
                f"action {row} of the chunk is not finite: {actions[row].tolist()}"
            )
        actions.setflags(write=False)
        object.__setattr__(self, "actions", actions)

    @property
    def action_dim(self) -> int:
        return int(self.actions.shape[1])

    @property
    def end_ns(self) -> int:
        """The first time that the chunk has no action for."""
        return self.stamp_ns + len(self.actions) * self.dt_ns

    def covers(self, time_ns: int) -> bool:
        return self.stamp_ns <= time_ns < self.end_ns

    def action_at(self, time_ns: int) -> NDArray[np.float64] | None:
        """The action (A,) that is due at `time_ns`; None before the first and after the last."""
        if not self.covers(time_ns):
            return None
        action: NDArray[np.float64] = self.actions[(time_ns - self.stamp_ns) // self.dt_ns]
        return action
