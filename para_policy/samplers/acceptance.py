"""Acceptance rules: the test that makes a row of a window final after a sweep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.samplers.checks import check_number


class Acceptance(ABC):
    """A rule that tells the rows of a window that passed."""

    @abstractmethod
    def passed(self, correction: Tensor, residual: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        """Return (n, W) bool.

        Args:
            correction: (n, W, *shape) change of state s + 1 that this sweep proposes.
            residual: (n, W, *shape) first-order residual of state s + 1 before this sweep.
            sigma: (N + 1,) noise std of the step that leaves each state; 0 for X_N.
            rows: (n, W) steps s.
        """

    @property
    def largest_residual(self) -> float | None:
        """What a residual may be at most, normalised action units; None where the rule has no such
        number. No residual falls below the rounding of the network, so no rule should ask for it."""
        return None


@dataclass(frozen=True)
class CorrectionBelowNoise(Acceptance):
    """ParaDiGMS: the RMS correction of a state is at most `tolerance` noise stds (Shih et al. 2023, alg. 1).

    As in the reference code the noise is that of the step that leaves the state, so the last two
    states, which no noise follows, pass only when they do not change at all.
    """

    tolerance: float = 0.1

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance)

    def passed(self, correction: Tensor, residual: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        return _rms(correction) <= self.tolerance * sigma[rows + 1]


@dataclass(frozen=True)
class ResidualBelowEither(Acceptance):
    """ParaTAA: the RMS first-order residual is below one of two bounds (Tang et al. 2024, section 3).

    Attributes:
        absolute: in normalised action units.
        relative: in noise stds of the step that makes the state.
    """

    absolute: float = 1e-3
    relative: float = 1e-3

    def __post_init__(self) -> None:
        check_number("tolerance", self.absolute)
        check_number("relative_tolerance", self.relative)

    def passed(self, correction: Tensor, residual: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        bound = (self.relative * sigma[rows]).clamp(min=self.absolute)
        return _rms(residual) <= bound

    @property
    def largest_residual(self) -> float:
        """See `Acceptance`."""
        return self.absolute


@dataclass(frozen=True)
class ResidualBelow(Acceptance):
    """Absolute bounds on the first-order residual and on the correction that the sweep propagates.

    The residual says how far a state is from what the step formula writes; it must be at most
    `tolerance`. It does not add up the residuals before it; the correction does, and estimates the
    error that the state had before this sweep. It must be at most half of `tolerance` for a row to
    become final while others go on, because its remaining error reaches all of them, and at most
    `tolerance` where all the rest of the trajectory passes together.

    Attributes:
        tolerance: largest coordinate, normalised action units.
    """

    tolerance: float = 1e-2

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance)

    def passed(self, correction: Tensor, residual: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        size = largest(correction)
        small = largest(residual) <= self.tolerance
        to_the_end = rows[:, -1:] == len(sigma) - 2
        together = (small & (size <= self.tolerance)).all(dim=1, keepdim=True) & to_the_end
        return (small & (size <= self.tolerance / 2)) | together

    @property
    def largest_residual(self) -> float:
        """See `Acceptance`."""
        return self.tolerance


def _rms(value: Tensor) -> Tensor:
    return value.flatten(2).square().mean(dim=2).sqrt()


def largest(value: Tensor) -> Tensor:
    """(n, W) largest coordinate of (n, W, *shape)."""
    return value.flatten(2).abs().amax(dim=2)


def is_finite(size: Tensor) -> Tensor:
    """Whether a size (0 or more, infinity, or NaN) is finite; a third of the work of `isfinite`."""
    return size < torch.inf
