"""Samplers by name, and the options that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from para_policy import samplers
from para_policy.errors import InputError
from para_policy.samplers import Copy, LinearGuess, Prior


def test_every_name_makes_a_sampler_with_its_defaults() -> None:
    assert {"sequential", "paradigms"} <= set(samplers.names())
    measured = {"chord", "collocation", "pcm"}  # which need what is measured
    for name in set(samplers.names()) - measured:
        assert callable(samplers.get(name))
        assert samplers.get(name) == samplers.get(name)


def test_paradigms_has_the_papers_defaults() -> None:
    sampler = samplers.get("paradigms")
    assert (sampler.window, sampler.acceptance.tolerance) == (20, 0.1)
    assert sampler.max_rounds is None
    assert sampler.guess == Copy()


def test_paradigms_may_start_where_the_other_samplers_do() -> None:
    measured = LinearGuess(torch.zeros(3, 2), torch.zeros(2))
    assert samplers.get("paradigms").starting_at(measured).guess == Copy()
    sampler = samplers.get("paradigms", start="prior")
    assert sampler.guess == samplers.get("x0").guess == Prior()
    assert sampler.starting_at(measured).guess is measured


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("heun", {}, "unknown sampler 'heun'.*sequential.*paradigms"),
        ("paradigms", {"windwo": 3}, "no option.*windwo.*window"),
        ("chord", {}, "needs matrices, which is measured .* such as 'x0'"),
        ("collocation", {}, "needs matrices and nodes, which"),
        ("sequential", {"window": 3}, "no option.*window"),
        ("paradigms", {"start": "guess"}, "start is 'guess'; expected one of copy, prior"),
        ("paradigms", {"start": None}, "start is None"),
        ("paradigms", {"window": 0}, "window is 0"),
        ("paradigms", {"window": -1}, "window is -1"),
        ("paradigms", {"window": 2.5}, "window is 2.5"),
        ("paradigms", {"window": "20"}, "window is '20'"),
        ("paradigms", {"window": True}, "window is True"),
        ("paradigms", {"max_rounds": 0}, "max_rounds is 0"),
        ("paradigms", {"tolerance": -0.1}, "tolerance is -0.1"),
        ("paradigms", {"tolerance": float("nan")}, "tolerance is nan"),
        ("paradigms", {"tolerance": float("inf")}, "tolerance is inf"),
        ("paradigms", {"tolerance": "0.1"}, "tolerance is '?0.1"),
        ("paradigms", {"tolerance": None}, "tolerance is None"),
    ],
)
def test_a_wrong_name_or_option_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        samplers.get(name, **options)
