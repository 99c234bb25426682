"""Processes that must not outlive the one that has started them, even if that is killed."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 5.0

# Run by the child, which then becomes the command; 1 is PR_SET_PDEATHSIG.
_TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


def end_with_parent() -> None:
    """From now on end this process of `multiprocessing` when its parent has ended, however.

    A pool whose parent was killed waits for work for ever: each worker holds both ends of the queue.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "not started by multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


def tied(command: Sequence[str]) -> list[str]:
    """The command of a child process that gets SIGTERM when the thread that starts it has ended.

    Elsewhere than on Linux it is the command as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


def descendants() -> frozenset[int]:
    """Numbers of the processes that this one has started, directly or not, and that run."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, left = set[int](), [os.getpid()]
    while left:
        more = children.get(left.pop(), [])
        found.update(more)
        left += more
    return frozenset(found)


def end_all(end: Callable[[], object], before: frozenset[int]) -> None:
    """Call `end`, and kill what it was to end and has not: a process without any CPU time hears nothing.

    Args:
        before: `descendants` that it is not about.
    """
    handles = []
    for number in descendants() - before:
        # A handle names a process for certain, where a number may be taken again; some containers have none.
        with suppress(OSError, AttributeError):
            handles.append(os.pidfd_open(number))
    try:
        end()
        deadline = time.monotonic() + _PATIENCE_S
        for handle in handles:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([handle], [], [], left_s)[0]:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        for handle in handles:
            os.close(handle)
