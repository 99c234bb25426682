"""A thread that does slow work away from callbacks."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Collection

from para_policy.errors import InputError

_PATIENCE_S = 0.5
"""Time that `Worker.stop` waits for a call in progress; Ctrl-C must end a node in two seconds."""


class Worker:
    """Calls `work` in its own thread after `wake`; wakes that come during a call become one.

    So the work always looks at the newest state of the world, and never at a queue of old ones.
    What `work` raises is printed, and the next wake calls it again.

    Args:
        cpus: numbers of the CPUs that the thread, and threads that it starts, may run on; empty: all.
    Raises:
        InputError: when this process may not run on one of them.
    """

    def __init__(self, work: Callable[[], None], name: str, cpus: Collection[int] = ()) -> None:
        check_cpus(cpus)
        self._work = work
        self._cpus = frozenset(cpus)
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self, patience_s: float = _PATIENCE_S) -> bool:
        """End the thread; whether it has ended.

        Waits for a call in progress, but not for longer than `patience_s`: the thread then ends
        by itself when the call returns, and what the call still does is the caller's to ignore.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)  # 0 is this thread, not the process
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._work()
            except Exception:  # a defect in one call must not silently end all later ones
                traceback.print_exc()


def check_cpus(cpus: Collection[int]) -> None:
    """Raise InputError unless this process may run on all of `cpus`."""
    if not cpus:
        return
    if not hasattr(os, "sched_getaffinity"):
        raise InputError("this system cannot pin threads to CPUs; leave cpu_affinity at [-1]")
    allowed = os.sched_getaffinity(0)
    if not set(cpus) <= allowed:
        raise InputError(
            f"cpu_affinity is {sorted(cpus)}; this process may run on {sorted(allowed)} only"
        )
