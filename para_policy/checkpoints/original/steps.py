"""Steps of a pickle, read before an unpickler takes them: what none of its hooks could refuse."""

from __future__ import annotations

import pickletools
from itertools import takewhile
from pathlib import Path
from typing import Any

from para_policy.errors import CheckpointError

_MOST_STEPS = 500_000
"""Several times what the largest of the original policies take, with their optimizer."""
_MOST_NESTED = 100


def check_steps(path: Path, program: bytes) -> None:
    """Refuse what an unpickler does before it asks for a name, and what would take it too long.

    Raises:
        CheckpointError: naming what the pickle tries.
    """
    depths = _Depths()
    for position, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if position > _MOST_STEPS:
            raise CheckpointError(
                f"'{path}' is forged: its pickle has more than {_MOST_STEPS} steps"
            )
        # Python itself does not stand any depth.
        if depths.after(opcode.name, argument) > _MOST_NESTED:
            raise CheckpointError(
                f"'{path}' is forged: tuples are nested more than {_MOST_NESTED} deep"
            )
        # Remembered objects are numbered one after another; room is made up to the highest number.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > position:
            raise CheckpointError(f"'{path}' is forged: it makes room for {argument} objects")
        if opcode.name in ("EXT1", "EXT2", "EXT4"):
            raise CheckpointError(f"'{path}' is forged: it uses {opcode.name} in place of a name")


class _Depths:
    """How deep the tuples and frozen sets are nested that an unpickler has on its stack."""

    def __init__(self) -> None:
        self._stack: list[int | None] = []  # None is a mark
        self._memo: dict[int, int] = {}

    def after(self, name: str, argument: Any) -> int:
        """Depth of what lies on top of the stack after a step, by the step's name."""
        stack = self._stack
        if name in _MEMOISES:
            place = len(self._memo) if argument is None else int(argument)
            self._memo[place] = stack[-1] or 0
        elif name in _REMEMBERS:
            stack.append(self._memo.get(int(argument), 0))
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            stack.append(None)
        else:
            deepest = self._take(*_TAKES[name])
            stack += [deepest + 1 if name in _NESTS else 0] * _GIVES[name]
        return (stack[-1] if stack else 0) or 0

    def _take(self, count: int, to_mark: bool) -> int:
        """Remove what a step takes from the stack; returns the depth of the deepest."""
        deepest = 0
        if to_mark:
            while (depth := self._stack.pop()) is not None:
                deepest = max(deepest, depth)
        for _ in range(count):
            deepest = max(deepest, self._stack.pop() or 0)
        return deepest


_MEMOISES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_REMEMBERS = ("GET", "BINGET", "LONG_BINGET")
_NESTS = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_GIVES = {step.name: len(step.stack_after) for step in pickletools.opcodes}
_TAKES = {
    step.name: (
        len(list(takewhile(lambda kind: kind is not pickletools.markobject, step.stack_before))),
        pickletools.markobject in step.stack_before,
    )
    for step in pickletools.opcodes
}
"""Of each step, how many objects it takes from the stack, and whether also all down to a mark."""
