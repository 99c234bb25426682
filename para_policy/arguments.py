"""Kinds of arguments: what a function cannot use is refused before anything is done with it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from numbers import Integral, Real
from types import NoneType
from typing import Any

from para_policy.errors import InputError

_WORDS: dict[Any, str] = {
    Callable: "something callable",
    Integral: "an integer",
    NoneType: "None",
    Real: "a number",
}


def check_kind(name: str, value: Any, *kinds: Any) -> None:
    """Raise InputError unless `value` is an instance of one of the classes, abstract ones too.

    >>> check_kind("steps", [3], Integral, NoneType)
    Traceback (most recent call last):
    para_policy.errors.InputError: steps is [3], of type list; expected an integer or None
    """
    if not isinstance(value, kinds):
        expected = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
        raise InputError(
            f"{name} is {reprlib.repr(value)}, of type {type(value).__name__}; expected {expected}"
        )
