"""Disturbance of observations on their way: what real sensors, clocks and networks do to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Disturbance:
    """Parts are probabilities of each message, 0 to 1.

    Attributes:
        stamp_jitter_ms: each stamp is off by up to so much, either way.
        stamp_skew_ms: and by this; positive: the sensor's clock is ahead.
        drop: messages that are lost.
        duplicate: messages that are sent twice.
        reorder: messages that are sent after the one that follows.
    """

    stamp_jitter_ms: float = 0.0
    stamp_skew_ms: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0


class DisturbedPublisher:
    """Stamps messages and publishes them, with independent chance for each."""

    def __init__(self, publisher: Any, disturbance: Disturbance, seed: int) -> None:
        self._publisher = publisher
        self._how = disturbance
        self._random = np.random.default_rng(seed)
        self._held: Any = None

    def publish(self, message: Any, time_ns: int) -> None:
        """Send a message with a header, measured at `time_ns`, or lose it."""
        how, chance = self._how, self._random.random(3)
        jitter_ms = how.stamp_jitter_ms * self._random.uniform(-1, 1)
        stamp, time_ns = (
            message.header.stamp,
            time_ns + round(1e6 * (jitter_ms + how.stamp_skew_ms)),
        )
        stamp.sec, stamp.nanosec = divmod(time_ns, 10**9)
        if chance[0] < how.drop:
            return
        if chance[1] < how.reorder and self._held is None:
            self._held = message
            return
        for _ in range(2 if chance[2] < how.duplicate else 1):
            self._publisher.publish(message)
        if self._held is not None:
            self._publisher.publish(self._held)
            self._held = None
