"""Arrival of a signal in tests of what Python does about it."""

from __future__ import annotations

import signal


def arrive(number: int) -> None:
    """Call the handler that is set for a signal.

    The signal itself would first reach what rclpy has installed where other tests of the process
    used it; real signals are sent to processes of their own.
    """
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)
