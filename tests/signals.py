"""Waiting for a process of a test to get where a signal is sent to it."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(reached: Callable[[], bool], patience_s: float = 120) -> None:
    """Wait until a process has got as far as it is to be stopped at."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)
