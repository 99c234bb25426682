"""Checks of options, with errors that name the value and what was expected."""

from __future__ import annotations

import sys

import torch

from para_policy.errors import InputError


def check_count(name: str, value: int, least: int = 1, most: int | None = None) -> None:
    """Raise InputError unless `value` is an integer from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} is {value!r}; expected an integer {limit}")


def check_optional_count(name: str, value: int | None, most: int | None = None) -> None:
    """Raise InputError unless `value` is None or an integer from 1 to `most`."""
    try:
        if value is not None:
            check_count(name, value, most=most)
    except InputError as error:
        raise InputError(f"{error}, or None") from None


def check_number(name: str, value: float, *, zero_allowed: bool = True) -> None:
    """Raise InputError unless `value` is a finite number, at least 0 or above it."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Not math.isfinite: it cannot take an integer that no float can hold.
    if not (
        number and abs(value) <= sys.float_info.max and (value > 0 or (zero_allowed and value == 0))
    ):
        limit = "of at least 0" if zero_allowed else "above 0"
        raise InputError(f"{name} is {value!r}; expected a finite number {limit}")


def check_default_device() -> None:
    """Raise InputError where torch makes tensors for which no device is said elsewhere than on the CPU."""
    found = torch.get_default_device()
    if found.type != "cpu":
        raise InputError(
            f"torch's default device is {found}; para_policy expects the CPU, whatever device a policy "
            "is on: call it within `with torch.device('cpu'):`, or torch.set_default_device('cpu') before"
        )
