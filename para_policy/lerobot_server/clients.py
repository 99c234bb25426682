"""The robot client that is served, and how it is told from others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from para_policy.errors import InputError

_SILENT_S = 2.0
"""A client asks for actions all the time: one that makes no call for so long has lost its connection."""


class Clients:
    """Serves one client at a time: the last one that said that it is ready.

    gRPC connects again by itself when a connection breaks. The client then comes from another address
    and says nothing of it. It is known by the silence at the old address; an address that calls while
    that of the client goes on is another client, and must not get its actions. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address: str | None = None
        self._others: set[str] = set()
        self._new: set[str] = set()
        self._calls = 0
        self._heard_s = -_SILENT_S

    def ready(self, address: str) -> None:
        """Serve the client at this address from now on, and no other."""
        with self._lock:
            self._serve(address)

    @contextmanager
    def call(self, address: str) -> Iterator[None]:
        """A call from this address, from its beginning to its end.

        Raises:
            InputError: if it is not from the client that is served.
        """
        with self._lock:
            self._admit(address)
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                if address == self._address:
                    self._calls -= 1
                    self._heard_s = time.monotonic()

    def check(self, address: str) -> None:
        """Refuse to go on with a call that began before another client took over.

        Raises:
            InputError: if that is so.
        """
        if address != self._address:
            raise InputError("another robot client has connected since; start this one again")

    def _admit(self, address: str) -> None:
        if address == self._address:
            self._others |= self._new
            self._new.clear()
            return
        silent = not self._calls and time.monotonic() - self._heard_s >= _SILENT_S
        if address not in self._others and silent:
            self._serve(address)
        else:
            self._new.add(address)
        self.check(address)

    def _serve(self, address: str) -> None:
        if address != self._address:
            self._others.add(str(self._address))
            self._calls = 0
        self._others.discard(address)
        self._new.discard(address)
        self._address, self._heard_s = address, time.monotonic()
