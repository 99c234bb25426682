"""Failures of backends, sorted into those that can be helped and those that cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from para_policy.errors import ParaPolicyError

_T = TypeVar("_T")
# Libraries have no type of their own for it.
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "bad_alloc", "not enough memory")


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


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch might work."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(t in str(error).lower() for t in _MEMORY_TEXTS)


def reason(error: Exception) -> str:
    """Type and first line of an error: compilers add pages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
