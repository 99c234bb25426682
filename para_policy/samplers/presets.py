"""Named samplers: each a choice of parts, in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from para_policy.errors import InputError
from para_policy.samplers.acceptance import ChangeBelowNoise
from para_policy.samplers.base import Sampler
from para_policy.samplers.fixed_point import FixedPoint
from para_policy.samplers.guess import Copy
from para_policy.samplers.sequential import Sequential
from para_policy.samplers.splitting import Identity


def sequential() -> Sequential:
    """One network call after the other: the reference."""
    return Sequential()


def paradigms(
    window: int | None = 20, tolerance: float = 0.1, max_rounds: int | None = None
) -> FixedPoint:
    """ParaDiGMS (Shih et al. 2023): Picard iteration in a sliding window.

    Args:
        window: rows in flight; None for all N. With 20 a 100-step DDPM takes the rounds and rows
            that the paper reports for robots (25 and 390); the reference code's default is 10.
        tolerance: largest RMS change of an accepted state, in noise stds of the step that leaves it.
        max_rounds: stop early with `Status.ROUND_BUDGET`.
    """
    return FixedPoint(Identity(), ChangeBelowNoise(tolerance), Copy(), window, max_rounds)


_PRESETS: dict[str, Callable[..., Sampler]] = {"sequential": sequential, "paradigms": paradigms}


def names() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(_PRESETS)


def get(name: str, **options: Any) -> Sampler:
    """Make a sampler by name.

    Raises:
        InputError: for an unknown name or option, or a value out of range.

    >>> get("paradigms", window=10).window
    10
    """
    if name not in _PRESETS:
        raise InputError(f"unknown sampler {name!r}; expected one of {', '.join(_PRESETS)}")
    known = list(inspect.signature(_PRESETS[name]).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"sampler {name!r} has no option {unknown}; it takes {known or 'none'}")
    return _PRESETS[name](**options)
