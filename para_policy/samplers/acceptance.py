"""Acceptance rules: when a row of a window is final after a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from para_policy.samplers.checks import check_number


class Acceptance(Protocol):
    """Decides which rows of a window passed."""

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """Return (n, W) bool.

        Args:
            change: (n, W, *shape) change of state s + 1 that this sweep proposes.
            defect: (n, W, *shape) first-order defect of state s + 1 before this sweep.
            sigma: (N + 1,) noise std of the step that leaves each state; 0 for X_N.
            rows: (n, W) steps s.
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
        check_number("tolerance", self.tolerance)

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        return _rms(change) <= self.tolerance * sigma[rows + 1]


@dataclass(frozen=True)
class DefectBelowEither:
    """ParaTAA: the RMS first-order defect is below one of two bounds (Tang et al. 2024, section 3).

    Attributes:
        absolute: in normalised action units.
        relative: in noise stds of the step that makes the state.
    """

    absolute: float = 1e-3
    relative: float = 1e-3

    def __post_init__(self) -> None:
        check_number("tolerance", self.absolute)
        check_number("relative_tolerance", self.relative)

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        bound = (self.relative * sigma[rows]).clamp(min=self.absolute)
        return _rms(defect) <= bound


@dataclass(frozen=True)
class DefectBelow:
    """Absolute bounds on the first-order defect and on the correction that the sweep propagates.

    The defect says how far a state is from what the step formula writes; it must be at most
    `tolerance`. It does not add up the defects before it; the correction does, and estimates the
    error that the state had before this sweep. It must be at most half of `tolerance` for a row to
    become final while others go on, because its remaining error reaches all of them, and at most
    `tolerance` where all the rest of the trajectory passes together.

    Attributes:
        tolerance: largest coordinate, normalised action units.
    """

    tolerance: float = 1e-2

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance)

    def passed(self, change: Tensor, defect: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        correction = _largest(change)
        small = _largest(defect) <= self.tolerance
        to_the_end = rows[:, -1:] == len(sigma) - 2
        together = (small & (correction <= self.tolerance)).all(dim=1, keepdim=True) & to_the_end
        return (small & (correction <= self.tolerance / 2)) | together


def _rms(value: Tensor) -> Tensor:
    return value.flatten(2).square().mean(dim=2).sqrt()


def _largest(value: Tensor) -> Tensor:
    return value.flatten(2).abs().amax(dim=2)
