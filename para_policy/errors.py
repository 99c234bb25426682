"""Exceptions that users meet. Every message names the value, what was expected and the fix."""

from __future__ import annotations


class ParaPolicyError(ValueError):
    """Base of all errors that come from bad input; command lines turn it into exit code 2."""


class InputError(ParaPolicyError):
    """An argument, observation or option has a wrong name, shape, range or type."""


class CheckpointError(ParaPolicyError):
    """A checkpoint is missing, truncated, or does not hold what its configuration says."""


class DataError(ParaPolicyError):
    """A data set is missing, broken, or laid out differently than expected."""


class NonFiniteError(ParaPolicyError):
    """NaN or infinity where a robot would have to act on it, or a training to go on with it."""


class MissingPackageError(InputError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
