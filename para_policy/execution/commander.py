"""Commander: from the action that is due to the command that is sent, by guards, holding, enabling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.approach import Approach
from para_policy.execution.coordinates import UNKNOWN, Coordinates
from para_policy.execution.guards import Guards, Violation
from para_policy.execution.player import ChunkPlayer

Array = NDArray[np.float64]
Hold = Literal["silent", "repeat", "zero"]
_SETTLED_NS = 1_000_000_000
"""After so long a hold the robot has come to rest, and its state says better where it stands than the
last command, which somebody may have moved it away from. Before, the state lags behind."""


@dataclass(frozen=True, eq=False)
class RobotState:
    """Positions (A,) of the joints, or of the pose, in the order of the actions, at `stamp_ns`.

    Whoever measures may have a clock that is ahead. A state counts from its arrival at the latest, or
    it would stay fresh for so much longer.
    """

    stamp_ns: int
    positions: Array


class Commander:
    """The command of each period, or none where the robot holds. Not thread-safe.

    Every command has passed the guards; one that does not pass is not sent, and neither is the
    rest of its chunk. A robot that stands begins to move where it stands: see `Approach`. What is
    sent while the robot holds depends on `hold`:

    - "silent": nothing; a position controller keeps its set-point.
    - "repeat": the last command in every period, while enabled, for controllers that time out;
      nothing where the robot is no longer close to it, nor after `latch`: whoever else commands the
      robot would be contradicted in every period.
    - "zero": zeros, once, for controllers of velocities.

    Args:
        player: says which action is due.
        guards: say whether it may be sent.
        latch: after a violation hold until `enable`; otherwise play on with the next chunk.
        coordinates: what they mean. Each command is written with the numbers that are closest to
            those of the last one, or of the present state: a joint does not turn back at pi.
        max_state_age_ns: a state that is older does not count as present, nor does one of the future:
            the clock was set back since it came.
        max_approach_s: as `longest_s` of `Approach`.
        enabled: whether the robot may move from the start.
    """

    def __init__(
        self,
        player: ChunkPlayer,
        guards: Guards,
        *,
        hold: Hold = "silent",
        latch: bool = True,
        coordinates: Coordinates = UNKNOWN,
        max_state_age_ns: int = 500_000_000,
        max_approach_s: float = 10.0,
        enabled: bool = False,
    ) -> None:
        self._player = player
        self._guards = guards
        self._hold = hold
        self._latch = latch
        self._coordinates = coordinates
        self._approach = Approach(guards, coordinates, max_approach_s)
        self._max_state_age_ns = max_state_age_ns
        self._answered_ns: int | None = None
        self._moving = False
        self._stopped_ns = 0
        self._size = 0  # of the last command
        self.enabled = enabled
        self.latched = False
        self.latched_by = ""
        """Who else commands the robot, since `latch`; empty: nobody."""
        self.waiting = ""
        """Reason why actions that are due are not played, where no guard was broken."""
        self.violation: Violation | None = None
        """The last violation, until a command passes again."""
        self.violations = 0

    @property
    def moving(self) -> bool:
        """True where the last period had a command of a chunk."""
        return self._moving

    @property
    def approaching(self) -> bool:
        """True where the robot moves and is still on its way to the actions that are due."""
        return self._moving and self._approach.under_way

    def enable(self, enabled: bool) -> None:
        """Let the robot move, or hold it. Enabling takes back the latch of a violation.

        Somebody may have moved the robot before: it begins where it stands now.
        """
        if enabled and (self.latched or not self.enabled):
            self._guards.forget()
            self._approach.stand()
            self.latched, self.latched_by = False, ""
            self.violation = None
        self.enabled = enabled

    def latch(self, reason: str) -> None:
        """Hold until somebody calls `enable`, as others command the robot, too: `reason` says who."""
        self.latched, self.latched_by = True, reason
        self._player.clear()

    def command(self, now_ns: int, state: RobotState | None = None, held: str = "") -> Array | None:
        """The command (A,) to send in this period; None: send nothing.

        Args:
            held: why the robot must hold, whatever is due; empty: it may move.
        """
        self.waiting = held
        if held or not self.enabled or self.latched:
            return self._stand(now_ns, state)
        action = self._player.action_at(now_ns)
        if action is None:
            return self._stand(now_ns, state)
        present = self._present(now_ns, state)
        # A clock that was set back does not tell for how long the robot has stood.
        if not (self._moving or 0 <= now_ns - self._stopped_ns <= _SETTLED_NS) and (
            present is not None or self._guards.start_at_state
        ):
            self._guards.forget()
        if self._guards.need_state and present is None:
            self.waiting = self._describe(now_ns, state)
            return self._stand(now_ns, state)
        known = present if self._guards.last is None else self._guards.last
        if known is not None:
            action = self._coordinates.align(action, known)
        step = self._guards.check_place(action, present) or self._approach.step(
            action, present, now_ns
        )
        if step is None:
            return self._stand(now_ns, state)
        if isinstance(step, Violation):
            violation: Violation | None = step
        else:
            action, violation = step, self._guards.check(step, present, now_ns)
        if violation is not None:
            self._refuse(violation)
            return self._stand(now_ns, state)
        self._guards.sent(action, now_ns)
        self._moving, self._size = True, len(action)
        self.violation = None
        return action

    def answer_tick(self, tick_ns: int) -> Array | None:
        """Like `command`, but at most one for each tick of a simulated clock.

        In lockstep the simulator counts commands: a second one for the same tick would be taken
        for the answer to the next.
        """
        if self._answered_ns == tick_ns:
            return None
        command = self.command(tick_ns)
        if command is not None:
            self._answered_ns = tick_ns
        return command

    def _refuse(self, violation: Violation) -> None:
        self.violation = violation
        self.violations += 1
        self.latched = self._latch
        self._player.clear()

    def _stand(self, now_ns: int, state: RobotState | None) -> Array | None:
        """Command for a robot that holds."""
        stopped, self._moving = self._moving, False
        if stopped:
            self._stopped_ns = now_ns
        self._guards.stand()
        self._approach.stand()
        if self._hold == "zero":
            return np.zeros(self._size) if stopped else None
        last = self._guards.last
        if last is None or self._hold == "silent" or not self.enabled or self.latched_by:
            return None
        present = self._present(now_ns, state)
        if self._guards.need_state and present is None:
            return None
        return None if self._guards.check_place(last, present) else last

    def _present(self, now_ns: int, state: RobotState | None) -> Array | None:
        if state is None or not 0 <= now_ns - state.stamp_ns <= self._max_state_age_ns:
            return None
        last = self._guards.last
        return state.positions if last is None else self._coordinates.align(state.positions, last)

    def _describe(self, now_ns: int, state: RobotState | None) -> str:
        if state is None:
            return "no state of the robot yet, which the limits need"
        age = (now_ns - state.stamp_ns) / 1e9
        if age < 0:
            return f"the state of the robot is {-age:.3f} s ahead of the clock, which was set back"
        limit = self._max_state_age_ns / 1e9
        return f"the state of the robot is {age:.3f} s old, expected at most {limit:g} s"
