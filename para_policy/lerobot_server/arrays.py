"""numpy's arrays and numbers, made of the calls and states in their pickles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from para_policy.errors import InputError, shown

NAMED = {
    "numpy.dtype",
    "numpy.ndarray",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",  # from pickle protocol 5 on
}
"""What such pickles name; numpy 1 says core where numpy 2 says _core."""
_EXPECTED = "expected plain numbers as numpy pickles them"
_MOST_AXES = 8
_DTYPES = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_LITTLE_ENDIAN = [(3, order, None, None, None, -1, -1, 0) for order in "<|"]
"""States of these dtypes."""


@dataclass(frozen=True)
class Name:
    """What a pickle would import."""

    name: str


class Begun:
    """What a pickle makes of a call and then of a state.

    Args:
        finish: makes it of the state.
    """

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self._finish = finish
        self._made: list[Any] = []

    def build(self, state: Any) -> None:
        if self._made:
            raise InputError("a message changes the state of what is made already")
        self._made.append(self._finish(state))

    @property
    def value(self) -> Any:
        if not self._made:
            raise InputError("a message makes an object without its state")
        return self._made[0]


def called(name: Any, args: Any) -> Any:
    """What a call gives.

    Args:
        name: of what is called, a `Name`.
        args: a tuple.

    Returns:
        A number, an array, or what is `Begun` and waits for its state.

    Raises:
        InputError: for everything but the calls that numpy writes for plain numbers.
    """
    match name, args:
        case Name("numpy.dtype"), (str() as code, _, _) if code in _DTYPES:
            return Begun(partial(_dtype, code))
        case Name("numpy._core.multiarray._reconstruct"), (Name("numpy.ndarray"), (0,), b"b"):
            return Begun(_array_of_state)
        case Name("numpy._core.multiarray.scalar"), (np.dtype() as dtype, bytes() as data):
            return _array(data, dtype, (), "C")[()]
        case Name("numpy._core.numeric._frombuffer"), (data, dtype, shape, "C" | "F" as order, *_):
            return _array(data, dtype, shape, order)
        case Name("numpy._core.numeric._frombuffer"), (data, dtype, shape, "K", tuple() as axes):
            return _array(data, dtype, shape, "C").transpose(axes)
    raise InputError(f"a message calls {shown(name)} with {shown(args)}; {_EXPECTED}")


def _dtype(code: str, state: Any) -> np.dtype[Any]:
    if state not in _LITTLE_ENDIAN:
        raise InputError(f"a message has the dtype {code} with {shown(state)}; {_EXPECTED}")
    return np.dtype(code)


def _array_of_state(state: Any) -> np.ndarray:
    match state:
        case (1, shape, dtype, bool() as is_fortran, data):
            return _array(data, dtype, shape, "F" if is_fortran else "C")
    raise InputError(f"a message has an array with {shown(state)}; {_EXPECTED}")


def _array(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    fitting = (
        isinstance(data, (bytes, bytearray))
        and isinstance(dtype, np.dtype)
        and isinstance(shape, tuple)
        and len(shape) <= _MOST_AXES
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(shape) * dtype.itemsize == len(data)
    )
    if not fitting:
        size = len(data) if isinstance(data, (bytes, bytearray)) else shown(data)
        raise InputError(
            f"a message has an array of {shown(dtype)} and shape {shown(shape)} with {size} bytes; "
            f"{_EXPECTED}"
        )
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order=order)
