"""Values of joints out of JointState messages that name all of them, some, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.commander import RobotState

Array = NDArray[np.float64]

JOINT_FIELDS = ("position", "velocity", "effort")


def joint_values(message: JointState, joints: Sequence[str], field: str = "position") -> Array:
    """Values of `joints` (n,), in that order, whatever the order in the message.

    Args:
        field: one of `JOINT_FIELDS`.
    Raises:
        InputError: when a joint is absent or the message has fewer values than names.
    """
    values = dict(zip(message.name, getattr(message, field), strict=False))
    absent = [joint for joint in joints if joint not in values]
    if absent:
        raise InputError(
            f"no {field} of joint {', '.join(absent)}; the message names {list(message.name)} "
            f"and has {len(getattr(message, field))} values of {field}"
        )
    return np.array([values[joint] for joint in joints], dtype=np.float64)


class NewestJoints:
    """The newest values of some joints.

    Broadcasters of an arm, a gripper and a head often share one topic, each with its own joints.
    A message that names none of ours is passed over, one that names some brings those up to date,
    and the others keep their newest values for `max_age_ns`. At the start, and where all were silent for
    longer, one of them speaks first: for as long the others are waited for. Only `ages_s` may be called
    from another thread.

    Args:
        fields: of `JOINT_FIELDS`; values are those of all joints for the first one, then the next.
        max_age_ns: most by which the values of one joint may be older than those of another.
    """

    def __init__(
        self, joints: Sequence[str], max_age_ns: int, fields: Sequence[str] = ("position",)
    ) -> None:
        self._joints = list(joints)
        self._fields = list(fields)
        self._max_age_ns = max_age_ns
        self.passed_over = ""
        """Reason why the last message gave no values; empty where it gave some."""
        self.clear()

    def clear(self) -> None:
        """Forget all values, as at the start of an episode."""
        self._newest: dict[str, tuple[int, tuple[float, ...]]] = {}  # time, and value of each field
        self._partial = False
        self._begun_ns: int | None = None  # the first message after a silence of all

    def concern(self, message: JointState) -> bool:
        """True where a message names one of the joints, or more."""
        return not set(self._joints).isdisjoint(message.name)

    def take(self, message: JointState, stamp_ns: int) -> tuple[int, Array] | None:
        """Values (fields x joints,), flat, with their time: that of the newest of them.

        A message with all joints is answered by its own values and time, also where it comes late.

        Returns:
            None where the message is passed over, or a joint has not been named yet.
        Raises:
            InputError: when a value of a named joint is absent, or values of one joint have become
                too old.
        """
        names = set(message.name)
        named = [joint for joint in self._joints if joint in names]
        if not named:
            self.passed_over = f"a message names {sorted(names)}, none of {', '.join(self._joints)}"
            return None
        found = [joint_values(message, named, field) for field in self._fields]
        self._remember(named, found, stamp_ns)
        self.passed_over = ""
        if len(named) == len(self._joints):
            return stamp_ns, np.concatenate(found)
        self._partial = True
        absent = [joint for joint in self._joints if joint not in self._newest]
        if absent:
            self.passed_over = f"no message has named {', '.join(absent)} yet"
            return None
        self.passed_over = self._behind()
        if self.passed_over and not self.waiting:
            raise InputError(self.passed_over)
        return None if self.passed_over else (max(self._stamps().values()), self._values())

    @property
    def waiting(self) -> bool:
        """Joints that are not up to date may still speak."""
        if self._begun_ns is None:
            return False
        return max(self._stamps().values()) - self._begun_ns <= self._max_age_ns

    def state(self, message: JointState, stamp_ns: int) -> RobotState | None:
        """Positions of the joints at the time of the oldest of them; None as for `take`.

        Raises:
            InputError: as `take`.
            NonFiniteError: when a position is NaN or infinite.
        """
        if self.take(message, stamp_ns) is None:
            return None
        positions = self._values()
        if not np.isfinite(positions).all():
            found = dict(zip(self._joints, positions.tolist(), strict=True))
            raise NonFiniteError(f"positions are {found}; expected finite numbers")
        return RobotState(min(self._stamps().values()), positions)

    def ages_s(self, now_ns: int) -> dict[str, float]:
        """Age of the values of each joint that has been named; empty where every message names all."""
        if not self._partial:
            return {}
        return {joint: (now_ns - stamp_ns) / 1e9 for joint, stamp_ns in self._stamps().items()}

    def _remember(self, named: Sequence[str], found: Sequence[Array], stamp_ns: int) -> None:
        before = self._stamps()
        if any(stamp_ns < before.get(joint, stamp_ns) - self._max_age_ns for joint in named):
            self.clear()  # a simulation or a bag has begun again
            before = {}
        if not before or self._resumes(before, stamp_ns):
            self._begun_ns = stamp_ns
        columns = zip(*(values.tolist() for values in found), strict=True)
        for joint, column in zip(named, columns, strict=True):
            if stamp_ns >= before.get(joint, stamp_ns):
                self._newest[joint] = (stamp_ns, column)

    def _resumes(self, before: dict[str, int], stamp_ns: int) -> bool:
        """All joints were up to date, and then silent."""
        oldest, newest = min(before.values()), max(before.values())
        together = len(before) == len(self._joints) and newest - oldest <= self._max_age_ns
        return together and stamp_ns - newest > self._max_age_ns

    def _stamps(self) -> dict[str, int]:
        """Of a copy, as ages are also asked for by the thread that plans."""
        return {joint: stamp_ns for joint, (stamp_ns, _) in self._newest.copy().items()}

    def _values(self) -> Array:
        """All values (fields x joints,), flat."""
        columns = [self._newest[joint][1] for joint in self._joints]
        return np.array(columns, dtype=np.float64).T.ravel()

    def _behind(self) -> str:
        """What is to be said of the joint whose values are the oldest; empty if they are not too old."""
        stamps = self._stamps()
        joint = min(stamps, key=stamps.__getitem__)
        behind_ns = max(stamps.values()) - stamps[joint]
        if behind_ns <= self._max_age_ns:
            return ""
        return (
            f"the newest values of joint {joint} are {behind_ns / 1e9:.3f} s older than those of the "
            f"others, the limit is {self._max_age_ns / 1e9:g} s"
        )
