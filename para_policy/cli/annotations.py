"""Annotations of commands in the form that tyro (1.0) reads fastest: --help in half of the time."""

from __future__ import annotations

import ast
import itertools
import sys
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro


def prepared(kind: type) -> dict[str, Any]:
    """Annotations of a dataclass and its bases, each with the text below its field as the help.

    Left to itself, tyro parses the source of every class several times to find these texts, and for
    `X | None` it loads typeguard.
    """
    helps: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        helps |= _texts(base.__module__).get(base.__name__, {})
    hints = get_type_hints(kind, include_extras=True)
    return {name: _with_help(_without_bar(hint), helps.get(name)) for name, hint in hints.items()}


@cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """Texts below the fields of the classes of a module, by class and field."""
    file = sys.modules[module].__file__
    assert file is not None
    tree = ast.parse(Path(file).read_bytes())
    return {node.name: _below(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below(body: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as words)),
            ):
                found[name] = " ".join(words.split())
    return found


def _with_help(hint: Any, text: str | None) -> Any:
    return hint if text is None else Annotated[hint, tyro.conf.arg(help=text)]


def _without_bar(hint: Any) -> Any:
    """`Union[X, Y]` of `X | Y`, and what is annotated alike."""
    if get_origin(hint) is Annotated:
        inner, *more = get_args(hint)
        return Annotated[(_without_bar(inner), *more)]
    return Union[get_args(hint)] if isinstance(hint, UnionType) else hint  # noqa: UP007
