"""Functions of other projects with other names or captured values; the originals stay as they are.

The way to what a project keeps in local variables, without changing anything of it: two policies in one
process, patched or not, never see each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any, cast


def with_globals(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """A copy of a function that finds other values under some names of its module.

    Decorators are left off.
    """
    plain = _plain(function)
    return _copied(plain, {**plain.__globals__, **names}, plain.__closure__)


def global_of(function: Callable[..., Any], name: str) -> Any:
    """What a function finds under a name of its module; None for nothing."""
    return _plain(function).__globals__.get(name)


def captured(function: Callable[..., Any]) -> dict[str, Any]:
    """The values that an inner function has of the function around it.

    >>> def outer(scale):
    ...     return lambda x: scale * x
    >>> captured(outer(3))
    {'scale': 3}
    """
    plain = _plain(function)
    cells = plain.__closure__ or ()
    return {
        name: cell.cell_contents
        for name, cell in zip(plain.__code__.co_freevars, cells, strict=True)
    }


def recaptured(function: Callable[..., Any], values: Mapping[str, Any]) -> Callable[..., Any]:
    """A copy of an inner function with other captured values; `values` has all of them.

    >>> def outer(scale):
    ...     return lambda x: scale * x
    >>> recaptured(outer(3), {"scale": 5})(2)
    10
    """
    plain = _plain(function)
    cells = tuple(CellType(values[name]) for name in plain.__code__.co_freevars)
    return _copied(plain, plain.__globals__, cells)


def inner_captures(function: Callable[..., Any]) -> Iterable[frozenset[str]]:
    """The names that each function inside a function captures, without running it."""
    constants = _plain(function).__code__.co_consts
    return [frozenset(code.co_freevars) for code in constants if isinstance(code, CodeType)]


def _plain(function: Callable[..., Any]) -> FunctionType:
    return cast(FunctionType, inspect.unwrap(function))


def _copied(
    plain: FunctionType, names: dict[str, Any], cells: tuple[CellType, ...] | None
) -> FunctionType:
    made = FunctionType(plain.__code__, names, plain.__name__, plain.__defaults__, cells)
    made.__kwdefaults__ = plain.__kwdefaults__
    return made
