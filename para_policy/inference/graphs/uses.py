"""What a recording addresses: the engines that it called, and whether they are as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

_NOTING: ContextVar[Uses | None] = ContextVar("noting", default=None)


class Prepared(Protocol):
    """Something with buffers at addresses that stay.

    Attributes:
        generation: another number once buffers were given up.
    """

    generation: int


class Uses:
    """What was called, each in its generation then. It is kept alive, and with it its buffers."""

    def __init__(self) -> None:
        self._called: dict[int, tuple[Prepared, int]] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Take down what is called meanwhile, by this thread."""
        before = _NOTING.set(self)
        try:
            yield
        finally:
            _NOTING.reset(before)

    def add(self, called: Prepared) -> None:
        """Take down what was called; the last call counts."""
        self._called[id(called)] = called, called.generation

    @property
    def hold(self) -> bool:
        """All buffers are still where they were."""
        return all(called.generation == then for called, then in self._called.values())


def note(called: Prepared) -> None:
    """Tell whoever records at the moment that it addresses the buffers of `called`."""
    uses = _NOTING.get()
    if uses is not None:
        uses.add(called)
