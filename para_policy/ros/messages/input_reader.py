"""Reader of the messages of one topic, in their order."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from para_policy.ros.messages.conversions import joint_fields
from para_policy.ros.messages.inputs import InputMapping
from para_policy.ros.messages.joints import NewestJoints


class InputReader:
    """Reads the messages of one topic, one after the other.

    Of JointState messages that name some of the joints the newest values are put together, see
    `NewestJoints`; other messages speak for themselves. Not thread-safe.

    Args:
        shape: of the policy's input, or of the part that the topic feeds.
        max_age_s: most by which values of one joint may be older than those of another, where the
            mapping gives no `max_age_s`.
    """

    def __init__(self, mapping: InputMapping, shape: tuple[int, ...], max_age_s: float) -> None:
        self.mapping = mapping
        self.shape = shape
        self._joints: NewestJoints | None = None
        if mapping.joints:
            limit_ns = math.ceil(1e9 * (mapping.max_age_s or max_age_s))
            fields = joint_fields(mapping.options)
            self._joints = NewestJoints(mapping.joints, limit_ns, fields)

    @property
    def passed_over(self) -> str:
        """Reason why the last message gave no values; empty where it gave some."""
        return "" if self._joints is None else self._joints.passed_over

    def read(self, message: Any, receive_ns: int) -> tuple[int, NDArray[Any]] | None:
        """Time of the measurement in nanoseconds, and values; None where a message is passed over.

        Raises:
            InputError: as `InputMapping.read`.
        """
        mapping = self.mapping
        if self._joints is None:
            return mapping.read(message, receive_ns, self.shape)
        if self._joints.concern(message):
            mapping.check_frame(message)
        taken = self._joints.take(message, mapping.time_ns(message, receive_ns))
        return None if taken is None else (taken[0], mapping.scaled(taken[1]))

    def joint_ages_s(self, now_ns: int) -> dict[str, float]:
        """Age of the newest values of each joint; empty where every message brings all."""
        return {} if self._joints is None else self._joints.ages_s(now_ns)

    def clear(self) -> None:
        """Forget all values, as at the start of an episode."""
        if self._joints is not None:
            self._joints.clear()
