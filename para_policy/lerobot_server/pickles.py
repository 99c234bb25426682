"""Pickles read as data: nothing that they name is imported, called or changed.

A pickle is a program for a small machine with a stack. Its instructions are followed here as far as plain
data needs them, and a name stands for itself. What numpy writes for its arrays and numbers is recognised
and checked, and one data class is made from its fields.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, get_origin, get_type_hints

import numpy as np

from para_policy.errors import InputError, shown
from para_policy.lerobot_server.arrays import NAMED, Begun, Name, called

_MOST_ITEMS = 100_000
"""Instructions of a message, and entries of tuples that come again."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_COPIED = (type(None), bool, int, float, str, bytes, np.ndarray, np.generic)
"""What may come again."""


def unpickled(message: bytes, kind: type) -> Any:
    """The numbers, text, lists, tuples, dictionaries with text as keys, numpy arrays and numbers of a
    pickle of the protocols 2 to 5, and the data class `kind`, if it is one, in any of these.

    Arrays have up to 8 axes of plain numbers in the byte order of this computer, and can be written to.

    Raises:
        InputError: for everything else, with its name.
        Exception: if the pickle is damaged.
    """
    machine = _Machine(kind)
    for count, (opcode, arg, _) in enumerate(pickletools.genops(message)):
        if count + machine.repeated > _MOST_ITEMS:
            raise InputError(
                f"a message has more than {_MOST_ITEMS} items; send long lists of numbers as numpy arrays"
            )
        if opcode.name != "STOP":
            machine.follow(opcode.name, arg)
    (found,) = machine.stack
    return _whole(found)


class _Machine:
    """Stack and memory of a pickle.

    Attributes:
        stack: what is made so far.
        repeated: entries of tuples that came again.
    """

    def __init__(self, kind: type) -> None:
        self.stack: list[Any] = []
        self.repeated = 0
        self._kind = kind
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def follow(self, name: str, arg: Any) -> None:
        """Follow one instruction, by its name in `pickletools`."""
        stack, memory = self.stack, self._memory
        match name:
            case _ if name in _VALUES:
                stack.append(arg)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _TUPLES:
                stack.append(tuple(map(_part, self._taken(len(stack) - _TUPLES[name]))))
            case "PROTO" | "FRAME":
                pass
            case "MEMOIZE":
                memory[len(memory)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memory[arg] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._again(memory[arg]))
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(map(_part, self._taken(self._marks.pop()))))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "APPEND" | "APPENDS":
                start = len(stack) - 1 if name == "APPEND" else self._marks.pop()
                _extend(map(_whole, self._taken(start)), stack[-1])
            case "SETITEM" | "SETITEMS":
                start = len(stack) - 2 if name == "SETITEM" else self._marks.pop()
                _update(list(map(_whole, self._taken(start))), stack[-1])
            case "GLOBAL":
                stack.append(self._named(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self._named(*self._taken(len(stack) - 2)))
            case "REDUCE":
                stack.append(called(*self._taken(len(stack) - 2)))
            case "NEWOBJ":
                stack.append(self._begun(*self._taken(len(stack) - 2)))
            case "BUILD":
                begun, state = stack[-2], stack.pop()
                if not isinstance(begun, Begun):
                    raise InputError(f"a message sets the state of {shown(begun)}")
                begun.build(state)
            case _:
                raise InputError(f"a message holds the instruction {name}, which no data needs")

    def _taken(self, start: int) -> list[Any]:
        """The stack from `start` on, which it loses."""
        if start < 0:
            raise ValueError("its stack is empty")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _again(self, value: Any) -> Any:
        """Not a container of containers: a short message could hold endless ones."""
        if isinstance(value, tuple) and all(isinstance(part, _COPIED) for part in value):
            self.repeated += len(value)
        elif not isinstance(value, (Name, Begun, *_COPIED)):
            raise InputError(f"a message holds the same {type(value).__name__} twice; copy it")
        elif isinstance(value, Begun) and is_dataclass(value.value):
            raise InputError("a message holds the same object twice; copy it")
        return value

    def _named(self, module: Any, name: Any) -> Name:
        if module in ("numpy.core.multiarray", "numpy.core.numeric"):  # of numpy 1
            module = module.replace(".core.", "._core.")
        named = f"{module}.{name}"
        if named not in NAMED and not self._is_kind(named):
            raise InputError(
                f"a message names {shown(named)}, which is not unpickled; expected a "
                f"{self._kind.__name__} of numbers, text and numpy arrays"
            )
        return Name(named)

    def _is_kind(self, named: str) -> bool:
        kind = self._kind
        return is_dataclass(kind) and named == f"{kind.__module__}.{kind.__qualname__}"

    def _begun(self, name: Any, args: Any) -> Begun:
        if not isinstance(name, Name) or not self._is_kind(name.name) or args != ():
            raise InputError(f"a message makes an object of {shown(name)}")
        return Begun(partial(_filled, self._kind))


def _part(value: Any) -> Any:
    """A part of a tuple, which may hold the arguments of a call."""
    if isinstance(value, Begun):
        value = value.value
    return value if isinstance(value, (Name, np.dtype)) else _whole(value)


def _whole(value: Any) -> Any:
    """A value that stays."""
    if isinstance(value, Begun):
        value = value.value
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, (Name, np.dtype)):
            raise InputError(f"a message holds {shown(part)} as a value")
    return value


def _extend(values: Iterable[Any], made: Any) -> None:
    if type(made) is not list:
        raise InputError(f"a message appends to {shown(made)}")
    made.extend(values)


def _update(values: list[Any], made: Any) -> None:
    if type(made) is not dict:
        raise InputError(f"a message sets items of {shown(made)}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, str):
            raise InputError(f"a message has the key {shown(key)}; expected text")
        made[key] = value


def _filled(kind: type, state: Any) -> Any:
    """A data class of all its fields, each of the type that it says."""
    expected = {field.name for field in fields(kind)}
    if not isinstance(state, dict) or set(state) != expected:
        raise InputError(f"a {kind.__name__} has {shown(state)}; expected {sorted(expected)}")
    types = get_type_hints(kind)
    for name, value in state.items():
        of = get_origin(types[name]) or types[name]
        if not isinstance(value, (int, float) if of is float else of):
            raise InputError(f"{kind.__name__}.{name} is {shown(value)}; expected {of.__name__}")
    return kind(**state)
