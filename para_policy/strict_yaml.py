"""YAML in which no key stands twice. YAML's own readers take the last one, and nobody notices: a limit that
was set above is gone."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class RepeatedKeyError(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                raise RepeatedKeyError(
                    problem=f"key {key.value!r} stands in line {lines[name]} and in line {line}; "
                    "expected it once"
                )
            lines[name] = line
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """What `yaml.safe_load` reads.

    Raises:
        RepeatedKeyError: a yaml.YAMLError, as all others; with the key and both lines.

    >>> read_yaml("a: 1")
    {'a': 1}
    >>> read_yaml("a: 1\\nb: 2\\na: 3")
    Traceback (most recent call last):
    para_policy.strict_yaml.RepeatedKeyError: key 'a' stands in line 1 and in line 3; expected it once
    """
    return yaml.load(text, Loader=_Loader)
