"""Proof that a faster way to make a call is right and faster, on one call that both answer."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

_REPEATS = 3
_PATIENCE_S = 2.0
"""A robot stands still meanwhile: slow calls are timed only once, after a first one of each, which
pays for what is prepared then."""


@dataclass(frozen=True, eq=False)
class Randomness:
    """State of all sources of random numbers that a call may draw from."""

    cpu: Tensor
    cuda: tuple[Tensor, ...]
    generators: tuple[tuple[torch.Generator, Tensor], ...]
    numpy: Any
    python: Any

    @classmethod
    def now(cls, *given: Any) -> Randomness:
        """Of the global sources, and of the generators among the arguments `given` of a call."""
        return cls(
            torch.get_rng_state(),
            tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else (),
            tuple((one, one.get_state()) for one in given if isinstance(one, torch.Generator)),
            np.random.get_state(),
            random.getstate(),
        )

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
        for generator, state in self.generators:
            generator.set_state(state)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


@dataclass(frozen=True)
class Proof:
    """What one call has shown.

    Attributes:
        error: largest difference of a coordinate; NaN or infinity where the answers cannot be compared.
        allowed: largest error that counts as the same answer.
        before_s, after_s: shortest times of the call, s; `after_s` is NaN if there was no answer.
        repeats: timed calls of each, after one that warmed up; 0 if the answer was wrong.
        failure: of the faster way, which raised it; "" for none.
    """

    allowed: float
    before_s: float
    after_s: float = math.nan
    error: float = math.nan
    repeats: int = 0
    failure: str = ""

    @property
    def right(self) -> bool:
        return not self.failure and self.error <= self.allowed

    @property
    def refusal(self) -> str:
        """Why the faster way is not taken; "" if it is."""
        if self.failure:
            return f"it failed: {self.failure}"
        if not self.right:
            return f"its answer differs by {self.error:.2g}, allowed is {self.allowed:.2g}"
        if self.after_s >= self.before_s:
            return (
                f"it is not faster: {self.after_s * 1e3:.1f} ms, {self.before_s * 1e3:.1f} before"
            )
        return ""


def prove(
    original: Callable[..., Tensor],
    faster: Callable[..., Tensor],
    *args: Any,
    allowed: float,
    **kwargs: Any,
) -> tuple[Tensor, Proof]:
    """Answer a call, and compare a faster way to make it: same input, same random numbers.

    Both warm up before they are timed, and take turns.

    Args:
        original: decides what is right; both may be called several times with the same arguments.
        args, kwargs: of the call.
        allowed: see `Proof`.

    Returns:
        The answer of `original`, and the proof. All random state is as one call of `original` leaves it.
    """
    start = Randomness.now(*args, *kwargs.values())

    def timed(call: Callable[..., Tensor]) -> tuple[Tensor, float]:
        start.restore()
        _wait()
        begun = perf_counter()
        answer = call(*args, **kwargs)
        _wait()
        return answer, perf_counter() - begun

    answer, before = timed(original)
    answer = answer.clone()  # a compiled network may write its next answer to the same place
    left = Randomness.now(*args, *kwargs.values())
    proof = Proof(allowed, before)
    try:
        found, after = timed(faster)
        proof = replace(proof, after_s=after, error=difference(answer, found))
        spent, times = before + after, list[tuple[float, float]]()
        while proof.right and len(times) < (_REPEATS if spent < _PATIENCE_S else 1):
            times.append((timed(original)[1], timed(faster)[1]))
            spent += sum(times[-1])
        if times:
            before, after = map(min, zip(*times, strict=True))
            proof = replace(proof, before_s=before, after_s=after, repeats=len(times))
    except Exception as error:  # whatever it is, the robot goes on as before
        proof = replace(proof, failure=f"{type(error).__name__}: {error}")
    finally:
        left.restore()
    return answer, proof


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of a coordinate; infinity for other shapes, NaN where one is NaN."""
    if one.shape != other.shape:
        return math.inf
    return float((one.double() - other.double()).abs().max())


def _wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
