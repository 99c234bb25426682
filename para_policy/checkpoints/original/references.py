"""References `${...}` in configurations of OmegaConf, resolved without running anything.

The original project resolves them when training starts, and so do most of its files. Where a file
keeps them, `${a.b}` stands for another value, and `${eval:...}`, which there is Python's `eval`, for
a computation. Here it may be arithmetic only.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from para_policy.errors import CheckpointError

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_PART = re.compile(r"[^.\[\]]+")
_LONGEST = 1000
_DEEPEST = 50
_MOST_ENTRIES = 100_000

_OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def resolve(config: Any) -> Any:
    """A configuration of dictionaries, lists and values, with its references resolved.

    References that lead nowhere, to themselves, or to other functions than `eval` stay as they are.

    Raises:
        CheckpointError: if it grows beyond what a configuration can be.

    >>> resolve({"n": 2, "policy": {"dim": "${eval:'${n} * 5 if True else None'}", "steps": "${n}"}})
    {'n': 2, 'policy': {'dim': 10, 'steps': 2}}
    """
    return _Resolver(config).value(config, (), 0)


class _Unknown(Exception):
    """A reference cannot be resolved."""


class _Resolver:
    def __init__(self, root: Any) -> None:
        self._root, self._entries = root, 0

    def value(self, value: Any, place: tuple[Any, ...], depth: int) -> Any:
        """`value`, which lies at `place`, behind `depth` references."""
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise CheckpointError(
                f"the configuration resolves to more than {_MOST_ENTRIES} entries"
            )
        if isinstance(value, dict):
            return {key: self.value(item, (*place, key), depth) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, (*place, i), depth) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value or depth > _DEEPEST:
            return value
        try:
            return self._text(value, place, depth)
        except _Unknown:
            return value

    def _text(self, text: str, place: tuple[Any, ...], depth: int) -> Any:
        while found := _INNERMOST.search(text):
            if len(text) > _LONGEST:
                raise _Unknown
            value = self._reference(found[1].strip(), place, depth)
            if found.span() == (0, len(text)):
                return value
            if isinstance(value, dict | list):
                raise _Unknown
            text = text[: found.start()] + str(value) + text[found.end() :]
        return text

    def _reference(self, name: str, place: tuple[Any, ...], depth: int) -> Any:
        if name.startswith("eval:"):
            return _computed(name.removeprefix("eval:"))
        path = name.lstrip(".")
        if ":" in name or not path:
            raise _Unknown
        dots = len(name) - len(path)
        parts = (*(place[:-dots] if dots else ()), *_PART.findall(path))
        value = self.value(_at(self._root, parts), parts, depth + 1)
        if isinstance(value, str) and "${" in value:
            raise _Unknown
        return value


def _at(value: Any, parts: Sequence[Any]) -> Any:
    try:
        for part in parts:
            value = value[int(part) if isinstance(value, list) else part]
    except (LookupError, TypeError, ValueError) as error:
        raise _Unknown from error
    return value


def _computed(text: str) -> Any:
    """What an arithmetic expression of numbers, truth values and None comes to."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[:1] == text[-1:]:
        text = text[1:-1].strip()
    try:
        return _evaluated(ast.parse(text, mode="eval").body)
    except (
        SyntaxError,
        ValueError,
        TypeError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:
        raise _Unknown from error


def _evaluated(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | None):
        return node.value
    if isinstance(node, ast.BinOp):
        return _operation(node.op)(_evaluated(node.left), _evaluated(node.right))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _operation(node.ops[0])(_evaluated(node.left), _evaluated(node.comparators[0]))
    if isinstance(node, ast.UnaryOp):
        return _operation(node.op)(_evaluated(node.operand))
    if isinstance(node, ast.BoolOp):
        found: Any = None
        for item in node.values:
            found = _evaluated(item)
            if bool(found) == isinstance(node.op, ast.Or):
                break
        return found
    if isinstance(node, ast.IfExp):
        return _evaluated(node.body if _evaluated(node.test) else node.orelse)
    raise _Unknown


def _operation(kind: ast.AST) -> Callable[..., Any]:
    if type(kind) not in _OPERATIONS:
        raise _Unknown
    return _OPERATIONS[type(kind)]
