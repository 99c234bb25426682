"""Names of samplers with a start, and which run is compared with which."""

from __future__ import annotations

import re

import pytest

from para_policy import samplers
from para_policy.errors import InputError
from sim.evaluation.variants import Variant, paired_with, reference_of
from sim.tasks.rollout import Control


@pytest.mark.parametrize(
    ("name", "sampler", "start"),
    [
        ("sequential", "sequential", "cold"),
        ("sequential+noise", "sequential", "guess+noise"),
        ("asd+noise", "asd", "guess+noise"),
        ("chord", "chord", "cold"),
        ("chord+guess", "chord", "guess"),
        ("paradigms+guess+noise", "paradigms", "guess+noise"),
    ],
)
def test_parse(name: str, sampler: str, start: str) -> None:
    variant = Variant.parse(name)
    assert (variant.name, variant.sampler, variant.start) == (name, sampler, start)


@pytest.mark.parametrize(
    ("text", "name", "options", "start"),
    [
        ("paradigms: window=10", "paradigms:window=10", {"window": 10}, "cold"),
        (
            "parataa:order=none,tolerance=1e+0+guess",
            "parataa:order=none,tolerance=1e+0+guess",
            {"order": None, "tolerance": 1.0},
            "guess",
        ),
        ("chord:tolerance=1e-3+guess+noise", None, {"tolerance": 1e-3}, "guess+noise"),
    ],
)
def test_options(text: str, name: str | None, options: dict[str, object], start: str) -> None:
    variant = Variant.parse(text)
    assert variant.name == (name or text)
    assert (variant.options, variant.start) == (options, start)


@pytest.mark.parametrize(
    ("text", "start", "control"),
    [
        ("sequential+redrawn", "cold", Control(redraw=True)),
        ("sequential+perturbed1e-2", "cold", Control(perturb=1e-2)),
        ("x0:tolerance=1e-3+guess+perturbed0.5", "guess", Control(perturb=0.5)),
        ("chord+guess+noise+redrawn", "guess+noise", Control(redraw=True)),
        ("sequential+noise+redrawn+perturbed1e-6", "guess+noise", Control(True, 1e-6)),
    ],
)
def test_control_arms(text: str, start: str, control: Control) -> None:
    variant = Variant.parse(text)
    assert (variant.name, variant.start, variant.control) == (text, start, control)


@pytest.mark.parametrize("size", ["", "0", "-1", "nan", "inf", "much"])
def test_a_perturbation_has_a_size(size: str) -> None:
    with pytest.raises(InputError, match=r"above 0 in normalised action units.*perturbed1e-2"):
        Variant.parse(f"sequential+perturbed{size}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("paradigms:size=10", "no option ['size']"),
        ("paradigms:window=0", "window is 0"),
        ("auto", "unknown sampler 'auto'"),
        ("diffusers-ddpm", "unknown sampler 'diffusers-ddpm'"),
    ],
)
def test_bad_options_are_named(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        Variant.parse(text)


@pytest.mark.parametrize("name", samplers.names())
def test_every_registered_sampler_can_be_named(name: str) -> None:
    assert Variant.parse(name).start == "cold"


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("sequential+guess", "expected sequential, sequential+noise"),
        ("asd+guess+noise", "expected asd, asd+noise"),
        ("x0+noise", "expected x0, x0+guess, x0+guess+noise"),
        ("x0+noise+guess", "expected x0, x0+guess, x0+guess+noise"),
        ("x0+", "expected x0, x0+guess"),
        ("magic+guess", "expected one of sequential, paradigms"),
        ("+guess", "expected one of sequential, paradigms"),
        ("", "expected one of sequential, paradigms"),
    ],
)
def test_bad_names_list_what_is_possible(name: str, possible: str) -> None:
    with pytest.raises(InputError) as error:
        Variant.parse(name)
    assert repr(name) in str(error.value)
    assert possible in str(error.value)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["sequential"], {}),
        (["x0", "sequential"], {"x0": "sequential"}),
        (["x0", "paradigms"], {"paradigms": "x0"}),
        (
            ["sequential", "sequential+noise", "x0+guess", "x0+guess+noise", "asd+noise"],
            {
                "sequential+noise": "sequential",
                "x0+guess": "sequential",
                "x0+guess+noise": "sequential+noise",
                "asd+noise": "sequential+noise",
            },
        ),
        (["x0+guess+noise", "sequential"], {"x0+guess+noise": "sequential"}),
        (
            ["sequential", "sequential+redrawn", "x0+redrawn", "x0+perturbed1e-2"],
            {
                "sequential+redrawn": "sequential",
                "x0+redrawn": "sequential+redrawn",
                "x0+perturbed1e-2": "sequential",
            },
        ),
        (
            ["x0", "x0+guess+noise", "sequential+noise"],
            {"x0": "sequential+noise", "x0+guess+noise": "sequential+noise"},
        ),
    ],
)
def test_pairs(names: list[str], pairs: dict[str, str]) -> None:
    assert paired_with(names) == pairs
    assert set(names) - set(pairs) == {reference_of(names)}


def test_only_samplers_that_solve_for_the_sequential_sample_have_an_error() -> None:
    names = ("sequential", "sequential+noise", "asd", "x0", "chord+guess", "paradigms+guess+noise")
    assert [Variant.parse(name).approximates for name in names] == [False] * 3 + [True] * 3
