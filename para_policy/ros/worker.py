"""A thread that does slow work away from callbacks."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable


class Worker:
    """Calls `work` in its own thread after `wake`; wakes that come during a call become one.

    So the work always looks at the newest state of the world, and never at a queue of old ones.
    What `work` raises is printed, and the next wake calls it again.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work = work
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End the thread; waits for a call in progress."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._work()
            except Exception:  # a defect in one call must not silently end all later ones
                traceback.print_exc()
