"""Failures of backends, sorted into those that can be helped and those that cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from para_policy.errors import ParaPolicyError
from para_policy.memory import is_out_of_memory

_T = TypeVar("_T")


class UnavailableError(ParaPolicyError):
    """A backend cannot be used here; the message says why, and what would help."""


def attempt(action: Callable[[], _T]) -> _T:
    """What `action` of a backend returns.

    Raises:
        MemoryError: if there is not enough memory, whatever the backend calls that.
        UnavailableError: for any other exception, as backends and compilers raise all kinds.
    """
    try:
        return action()
    except UnavailableError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(reason(error)) from error
        raise UnavailableError(reason(error)) from error


def reason(error: Exception) -> str:
    """Type and first line of an error: compilers add pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
