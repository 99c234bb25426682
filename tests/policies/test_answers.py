"""Answers of the shipped policy are those of earlier releases, to the bit on the same kind of machine.

`python -m scripts.answers compare tests/policies/goldens/answers.safetensors` compares all cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts.answers import CASES, DDPM, answers, differences, machine

STORED = Path(__file__).parent / "goldens" / "answers.safetensors"
QUICK = tuple(
    case
    for case in CASES
    if len(case.seeds) == 1 and (case.process != DDPM or case.sampler in ("chord", "x0", "pcm"))
)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("threads_as_before")
def test_the_answers_are_those_of_earlier_releases() -> None:
    assert len(CASES) == 70
    assert len(QUICK) >= 26
    assert {case.sampler for case in QUICK} >= {"sequential", "paradigms", "parataa", "x0", "chord"}
    stored = load_file(STORED)
    found, _ = differences(stored, QUICK)
    assert not found


@pytest.mark.usefixtures("threads_as_before")
def test_a_change_of_the_last_digit_is_noticed_on_the_same_machine() -> None:
    case = next(case for case in QUICK if case.sampler == "x0")
    (_, numbers), *_ = answers((case,))
    stored = {f"{case.name}/{name}": value for name, value in numbers.items()} | machine()
    name = f"{case.name}/sample"
    stored[name] = torch.nextafter(stored[name], torch.tensor(torch.inf))
    found, alike = differences(stored, (case,))
    assert alike
    assert len(found) == 1


@pytest.mark.usefixtures("threads_as_before")
def test_on_another_machine_samples_are_compared_within_the_tolerance() -> None:
    case = next(case for case in QUICK if case.sampler == "x0")
    (_, numbers), *_ = answers((case,))
    stored = {f"{case.name}/{name}": value for name, value in numbers.items()} | machine()
    stored["machine/100"] = stored["machine/100"] + 1e-7
    name = f"{case.name}/sample"
    for change, count in ((1e-3, 0), (0.1, 1)):
        found, alike = differences({**stored, name: stored[name] + change}, (case,))
        assert not alike
        assert len(found) == count
