"""Processes of a test: waiting until one is where a signal is sent to it, and whether it is gone then."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def wait_for(reached: Callable[[], bool], patience_s: float = 120) -> None:
    """Wait until a process has got as far as it is to be stopped at."""
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and not been waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def check_child_ends_with(parent: Sequence[str], patience_s: float) -> None:
    """Kill the process of a command that prints the number of its child; the child must end, too."""
    with subprocess.Popen(parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            wait_for(lambda: not alive(child), patience_s)
        finally:
            if alive(child):
                os.kill(child, signal.SIGKILL)
