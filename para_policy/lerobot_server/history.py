"""Last observations of a robot, for policies that look at more than one."""

from __future__ import annotations

from collections import deque
from typing import Any


class History:
    """The observations up to now that follow each other step by step.

    LeRobot's client sends no observations while its queue of actions is long. Those from before such a
    gap are too old to stand for the last steps and are forgotten.

    Args:
        length: number of observations that the policy looks at.

    >>> history = History(3)
    >>> history.add(0, "a")
    >>> history.window, history.complete
    (('a',), False)
    >>> for step, seen in ((1, "b"), (1, "c"), (2, "d")):  # a robot that waits stays at its step
    ...     history.add(step, seen)
    >>> history.window, history.complete
    (('b', 'c', 'd'), True)
    >>> history.add(5, "e")  # steps 3 and 4 were not seen
    >>> history.window, history.complete
    (('e',), False)
    """

    def __init__(self, length: int = 1) -> None:
        self._kept: deque[Any] = deque(maxlen=length)
        self._length = length
        self._step = 0

    def add(self, step: int, observation: Any) -> None:
        """Take the newest observation.

        Args:
            step: number of the action that the robot executes meanwhile.
        """
        if step - self._step not in (0, 1):
            self._kept.clear()
        self._step = step
        self._kept.append(observation)

    @property
    def window(self) -> tuple[Any, ...]:
        """Up to `length` of them, the newest last."""
        return tuple(self._kept)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return len(self._kept) == self._length
