"""Acceptance rules: how many leading rows of a window are final after a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from para_policy.errors import InputError


class Acceptance(Protocol):
    """Decides which rows of a window passed."""

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor) -> Tensor:
        """Return (n, W) bool.

        Args:
            change: (n, W, *shape) change of state s + 1 in this sweep.
            defect: (n, W, *shape) first-order defect of state s + 1 before this sweep.
            sigma: (n, W) noise std of the step that leaves state s + 1; 0 for X_N.
        """
        ...


@dataclass(frozen=True)
class ChangeBelowNoise:
    """ParaDiGMS: the RMS change of a state is at most `tolerance` noise stds (Shih et al. 2023, alg. 1).

    As in the reference code the noise is that of the step that leaves the state, so the last two
    states, which no noise follows, pass only when they do not change at all.
    """

    tolerance: float = 0.1

    def __post_init__(self) -> None:
        number = isinstance(self.tolerance, (int, float))
        if not (number and math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise InputError(
                f"tolerance is {self.tolerance!r}; expected a finite number of at least 0"
            )

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor) -> Tensor:
        rms = change.flatten(2).square().mean(dim=2).sqrt()
        return rms <= self.tolerance * sigma
