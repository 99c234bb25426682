"""Exceptions that users meet. Every message names the value, what was expected and the fix."""

from __future__ import annotations

import reprlib

_LONGEST = 4000


class ParaPolicyError(ValueError):
    """Base of all errors that come from bad input; command lines turn it into exit code 2."""

    def __str__(self) -> str:
        text = super().__str__()  # names in a forged file may be huge
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-500:]}"


class InputError(ParaPolicyError):
    """An argument, observation or option has a wrong name, shape, range or type."""


class CheckpointError(ParaPolicyError):
    """A checkpoint is missing, truncated, or does not hold what its configuration says."""


class DataError(ParaPolicyError):
    """A data set is missing, broken, or laid out differently than expected."""


class NonFiniteError(ParaPolicyError):
    """NaN or infinity where a robot would have to act on it, or a training to go on with it."""


class WorkerLostError(ParaPolicyError):
    """A worker process has ended before its work: it was killed, or the memory was full."""


class MissingPackageError(InputError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: object) -> str:
    """A value for a message, as Python writes it but short: a forged one may be huge.

    >>> shown("aye" * 1000) == shown("aye" * 1001)
    True
    """
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"a huge {type(value).__name__}"
