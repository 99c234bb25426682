from __future__ import annotations

import pytest
import yaml

from para_policy.strict_yaml import RepeatedKeyError, read_yaml


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: {c: 2}\na: 1", "key 'a' stands in line 1 and in line 3"),
        ("b:\n  - c: 2\n    d: 3\n    c: 4", "key 'c' stands in line 2 and in line 4"),
        ("{a: 1, a: 2}", "key 'a' stands in line 1 and in line 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(text: str, reason: str) -> None:
    with pytest.raises(RepeatedKeyError, match=reason):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: 1}\nb: {x: 1}",
        "1: a\n'1': b",
        "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, x: 4}\nd: [{<<: *b}, *a]",
        "[]",
        "",
    ],
)
def test_the_rest_is_what_it_always_was(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)
