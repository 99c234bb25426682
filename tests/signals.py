"""Signals in tests: in the process of the test, or to one that it has started."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable


def arrive(number: int) -> None:
    """Call the handler that is set for a signal.

    The signal itself would first reach what rclpy has installed where other tests of the process
    used it; real signals are sent to processes of their own.
    """
    handler = signal.getsignal(number)
    assert callable(handler)
    handler(number, None)


def wait_for(reached: Callable[[], bool], patience_s: float = 120) -> None:
    """Wait until a process has got as far as it is to be stopped at."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)
