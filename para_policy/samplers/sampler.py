"""What every sampler takes and returns."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers.deadline import Deadline
from para_policy.samplers.guess import Guess


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
        frozen: (batch,) number of leading states that are final.
        residual: (batch,) largest first-order defect of this round, NaN for finished samples.
        evals: (batch,) int64, network rows spent on each sample so far.
    """

    round: int
    trajectory: Tensor
    frozen: Tensor
    residual: Tensor
    evals: Tensor


Callback = Callable[[RoundInfo], None]


@dataclass(frozen=True)
class SampleResult:
    """A batch of samples with their statistics.

    Attributes:
        sample: (batch, *shape), X_N.
        trajectory: (batch, N + 1, *shape), X_0 .. X_N.
        rounds: (batch,) int64, batched network calls in which each sample took part.
        evals: (batch,) int64, network rows spent on each sample.
        residual: (batch,) largest first-order defect |S_s(X_s) + c_s xi_s - X_{s+1}| over the rows
            that the acceptance test let pass, before their last update; 0 for `sequential`. Of a
            sample that did not converge, the largest of its last round.
        correction: (batch,) largest last update of the rows that passed: their estimated error
            before it.
        residuals: (rounds, batch) largest defect in each round's window, NaN once a sample is done.
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

    @property
    def converged(self) -> Tensor:
        """(batch,) bool: the acceptance test passed for the whole trajectory."""
        return torch.tensor([status is Status.CONVERGED for status in self.status])


class Sampler(Protocol):
    """Turns noise into samples: a frozen configuration that is called."""

    @property
    def same_sample(self) -> bool:
        """Whether it solves for the sample that `sequential` makes of the same noise."""
        ...

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Solve for all samples of `noise`.

        Args:
            denoiser, process: the network with its condition, and the step table.
            noise: X_0 and every xi, which fix the answer.
            guess: where to start, instead of the sampler's own guess. It moves the start, never the
                solution; `sequential` has no use for it.
            deadline: stop at the last round that fits and return its iterate, which is the closest in
                practice and never NaN.
            callback: called with a `RoundInfo` after every round.

        Raises:
            InputError: if the arguments do not fit each other, or the sampler cannot stop early.
        """
        ...


def check_noise(process: Process, noise: Noise) -> None:
    """Raise InputError if `noise` does not have one xi for each step of `process`."""
    if noise.num_steps != process.num_steps:
        raise InputError(
            f"noise has {noise.num_steps} steps, the process {process.num_steps}; "
            "draw it with num_steps=process.num_steps"
        )
    if not noise.initial.is_floating_point():
        raise InputError(f"noise has dtype {noise.initial.dtype}; expected float32 or float64")
