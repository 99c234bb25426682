"""The result of a solve, its status, and the news of each round."""

from __future__ import annotations

import dataclasses
import enum
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.errors import NonFiniteError


class Status(enum.Enum):
    """How a solve ended, in words that say what to do."""

    CONVERGED = "converged"
    ROUND_BUDGET = (
        "stopped at max_rounds before the acceptance test passed; raise max_rounds or the tolerance"
    )
    DEADLINE = (
        "stopped at the deadline before the acceptance test passed; allow more time, or a larger "
        "tolerance"
    )
    NON_FINITE = "the network returned NaN or infinity; the sample must not be executed"


@dataclass(frozen=True)
class RoundInfo:
    """What a callback sees after each round.

    Attributes:
        round: rounds done so far, from 1.
        trajectory: (batch, N + 1, *shape) present states; read it, do not write.
        accepted: (batch,) number of leading states that are final.
        residual: (batch,) largest residual of this round, NaN for finished samples.
        evals: (batch,) int64, network rows spent on each sample so far.
    """

    round: int
    trajectory: Tensor
    accepted: Tensor
    residual: Tensor
    evals: Tensor

    @property
    def frozen(self) -> Tensor:
        """The former name of `accepted`."""
        warnings.warn("RoundInfo.frozen is now called accepted", DeprecationWarning, stacklevel=2)
        return self.accepted


Callback = Callable[[RoundInfo], None]

Poll = Callable[[], None]
"""Raises where a solve is to end."""


@dataclass(frozen=True)
class SampleResult:
    """A batch of samples with their statistics.

    Attributes:
        sample: (batch, *shape), X_N.
        trajectory: (batch, N + 1, *shape), X_0 .. X_N.
        rounds: (batch,) int64, batched network calls in which each sample took part.
        evals: (batch,) int64, network rows spent on each sample.
        residual: (batch,) largest residual |S_s(X_s) + c_s xi_s - X_{s+1}| over the rows
            that the acceptance test let pass, before their last update; 0 for `sequential`. Of a
            sample that did not converge, the largest of its last round.
        correction: (batch,) largest last update of the rows that passed: their estimated error
            before it.
        residuals: (rounds, batch) largest residual in each round's window, NaN once a sample is done.
        status: one `Status` for each sample.
        error_bound: (batch,) what no coordinate of `sample` is off by, with the confidence of the
            calibration, normalised action units; NaN for samples that did not converge, None where
            the sampler is not calibrated.
    """

    sample: Tensor
    trajectory: Tensor
    rounds: Tensor
    evals: Tensor
    residual: Tensor
    correction: Tensor
    residuals: Tensor
    status: tuple[Status, ...]
    error_bound: Tensor | None = None

    def checked(self, *, partial: bool) -> SampleResult:
        """The same if all samples are finite.

        Args:
            partial: return it even if not: samples of status `NON_FINITE` are NaN from the first
                state on that is not finite, whatever the sampler went on with.

        Raises:
            NonFiniteError: for such samples, unless `partial`.
        """
        broken = torch.tensor([status is Status.NON_FINITE for status in self.status])
        if not broken.any():
            return self
        if not partial:
            raise NonFiniteError(
                f"{int(broken.sum())} of {len(broken)} samples hold NaN or infinity (number "
                f"{int(broken.nonzero()[0])}): {Status.NON_FINITE.value}; check its weights and inputs"
            )
        trajectory = self.trajectory
        lost = ~trajectory.isfinite().flatten(2).all(dim=2)
        lost[:, -1] = True
        lost = (lost.cumsum(dim=1) > 0) & broken.to(lost.device)[:, None]
        trajectory = trajectory.masked_fill(
            lost.reshape(*lost.shape, *(1,) * (trajectory.ndim - 2)), torch.nan
        )
        return dataclasses.replace(self, sample=trajectory[:, -1], trajectory=trajectory)

    @property
    def converged(self) -> Tensor:
        """(batch,) bool: the acceptance test passed for the whole trajectory."""
        return torch.tensor([status is Status.CONVERGED for status in self.status])
