"""`prove`: what one call made both ways shows."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from para_policy.adapters.proof import Proof, Randomness, prove

SHAPE = (2, 8, 2)


def slow(seconds: float, shift: float = 0.0) -> Callable[..., Tensor]:
    """A call that draws from every source of random numbers, and takes its time."""

    def call(scale: float, generator: torch.Generator | None = None) -> Tensor:
        time.sleep(seconds)
        drawn = torch.randn(SHAPE) + torch.randn(SHAPE, generator=generator)
        return scale * (drawn + np.random.rand() + random.random()) + shift

    return call


def test_the_answer_is_that_of_the_original_and_so_is_all_random_state() -> None:
    generator = torch.Generator().manual_seed(3)
    start = Randomness.now(generator)
    expected = slow(0)(2.0, generator=generator)
    after = [*draws(generator)]
    start.restore()
    answer, proof = prove(slow(0.05), slow(0), 2.0, generator=generator, allowed=1e-3)
    assert torch.equal(answer, expected)
    assert [*draws(generator)] == after
    assert proof.error == 0
    assert proof.refusal == ""
    assert proof.repeats == 3
    assert 0 < proof.after_s < 0.05 <= proof.before_s


def draws(generator: torch.Generator) -> tuple[float, ...]:
    """The next number of every source."""
    one, other = torch.rand(()), torch.rand((), generator=generator)
    return float(one), float(other), np.random.rand(), random.random()


def fails(*_: object, **__: object) -> Tensor:
    raise RuntimeError("out of\nmemory")


def off_in_one_coordinate(scale: float) -> Tensor:
    answer = slow(0)(scale)
    answer[1, 3, 0] += 0.02
    return answer


@pytest.mark.parametrize(
    ("faster", "reason"),
    [
        (off_in_one_coordinate, r"differs by 0\.02, allowed is 0\.01"),
        (slow(0, shift=0.02), r"differs by 0\.02, allowed is 0\.01"),
        (slow(0, shift=float("nan")), "differs by nan"),
        (slow(0, shift=float("inf")), "differs by inf"),
        (lambda scale: torch.zeros(1), "differs by inf"),
        (lambda scale: torch.randn(2 * SHAPE[0], *SHAPE[1:]), "differs by inf"),
        (slow(0.03), "not faster: 3"),
        (fails, "failed: RuntimeError: out of\nmemory"),
    ],
)
def test_what_is_wrong_or_slower_is_refused(faster: Callable[..., Tensor], reason: str) -> None:
    start = Randomness.now()
    expected, state = slow(0)(1.0), torch.get_rng_state()
    start.restore()
    answer, proof = prove(slow(0.01), faster, 1.0, allowed=0.01)
    assert re.search(reason, proof.refusal)
    assert torch.equal(answer, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_answers_that_are_written_to_the_same_place_are_told_apart() -> None:
    """As by a compiled network, which both ways call."""
    place = torch.empty(SHAPE)
    answer, proof = prove(lambda: place.fill_(1.0), lambda: place.fill_(2.0), allowed=0.01)
    assert "differs by 1" in proof.refusal
    assert (answer == 1).all()


def test_an_error_of_the_original_is_its_callers() -> None:
    with pytest.raises(RuntimeError, match="out of"):
        prove(fails, slow(0), 1.0, allowed=0.01)


def test_slow_calls_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("para_policy.adapters.proof._PATIENCE_S", 0.01)
    _, proof = prove(slow(0.3), slow(0), 1.0, allowed=0.01)
    assert proof.repeats == 1
    assert proof.refusal == ""


def test_a_proof_without_an_answer_is_no_proof() -> None:
    assert "nan" in Proof(allowed=0.1, before_s=1.0).refusal
