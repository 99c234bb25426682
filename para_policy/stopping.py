"""Stop of a command by SIGINT (Ctrl-C) or SIGTERM: it ends with what it has, and says what is kept.

A signal raises `Stopped` wherever the command is. Where this would tear something apart, the work is
put into `deferred` and looks itself whether it is to end. A second signal always ends it at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """End of a command by a signal.

    Attributes:
        number: of the signal.
        kept: what is kept and how to go on; "" for nothing.
    """

    def __init__(self, number: int = signal.SIGINT, kept: str = "") -> None:
        super().__init__(number, kept)
        self.number, self.kept = number, kept

    @classmethod
    def of(cls, stop: KeyboardInterrupt) -> Stopped:
        """The same stop; Python's own comes from SIGINT."""
        return stop if isinstance(stop, Stopped) else cls()

    @property
    def exit_code(self) -> int:
        """As of a process that the signal has ended."""
        return 128 + self.number

    def __str__(self) -> str:
        """One line for the user."""
        name = signal.Signals(self.number).name
        return f"stopped by {name}; {self.kept}" if self.kept else f"stopped by {name}"


@dataclass
class Stop:
    """What `deferred` work looks at.

    Attributes:
        number: of the signal that has arrived; None for none.
    """

    number: int | None = None

    @property
    def requested(self) -> bool:
        return self.number is not None

    def end(self, kept: str) -> NoReturn:
        """Raise `Stopped`; by SIGTERM if only another process of this work got a signal."""
        raise Stopped(self.number or signal.SIGTERM, kept)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Stopped` within; in the main thread, others get no signals."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def deferred(patience_s: float = 0.0) -> Iterator[Stop]:
    """SIGINT and SIGTERM are noted within, and the work asks for them; the second raises `Stopped`.

    Args:
        patience_s: what comes within so many seconds after the first still counts as that.
    """
    found, first = Stop(), 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if not found.requested:
            found.number, first = number, time.monotonic()
        elif time.monotonic() - first >= patience_s:
            raise Stopped(number)

    with _handled_by(note):
        yield found


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Says what is kept by a stop within, unless it says so itself."""
    try:
        yield
    except KeyboardInterrupt as error:
        stop = Stopped.of(error)
        raise Stopped(stop.number, stop.kept or what()) from error


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
