"""Initial guesses: where the iteration starts. They move the start, never the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.splitting import transfer_matrix


class Guess(Protocol):
    """Fills states that no sweep has reached."""

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        """Return all states (batch, N + 1, *shape), and the first step that is to be solved.

        States before that step are taken as given. Otherwise the step is 0, and state 0 must be
        `noise.initial`.
        """
        ...

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        """Return `X` (n, N + 1, *shape) with the states cleaner than `end` (n,) guessed anew."""
        ...


@dataclass(frozen=True)
class Copy:
    """Repeat the cleanest state in flight (ParaDiGMS, ParaTAA)."""

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        return noise.initial[:, None].repeat_interleave(process.num_steps + 1, dim=1), 0

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        states = torch.arange(X.shape[1], device=X.device)
        beyond = (states > end[:, None]).reshape(X.shape[:2] + (1,) * (X.ndim - 2))
        last = X[torch.arange(len(X), device=X.device), end]
        return torch.where(beyond, last[:, None], X)


@dataclass(frozen=True)
class CleanSample:
    """Run the recurrence with a clean sample in place of the network's prediction.

    Attributes:
        sample: (batch, *shape), such as the previous chunk shifted to the present; None for 0, the
            centre of the prior.
    """

    sample: Tensor | None = None

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        steps = (process.num_steps, *(1,) * (noise.initial.ndim - 1))
        drive = process.c.reshape(steps) * noise.steps
        if self.sample is not None:
            if self.sample.shape != noise.initial.shape:
                raise InputError(
                    f"the guessed sample is {tuple(self.sample.shape)}; "
                    f"the noise is for {tuple(noise.initial.shape)}"
                )
            clean = self.sample.to(noise.initial)
            drive = drive + process.clean_weight.reshape(steps) * clean[:, None]
        drive[:, 0] += process.B[0] * noise.initial
        transfer = transfer_matrix(process.B)
        # One product per sample: see `each` in `splitting`.
        states = torch.stack([transfer @ one.flatten(1) for one in drive]).reshape(drive.shape)
        return torch.cat([noise.initial[:, None], states], dim=1), 0

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        return X


@dataclass(frozen=True)
class Trajectory:
    """Start from an existing trajectory (ParaTAA, Tang et al. 2024, section 4.2).

    Attributes:
        states: (batch, N + 1, *shape).
        solve_last: T_init, the number of steps at the clean end that are solved; earlier states
            stay as given, so the result is a variation of the old sample and not the sequential
            sample of the new condition. None solves all steps: exact.
    """

    states: Tensor
    solve_last: int | None = None

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        N = process.num_steps
        expected = (noise.batch, N + 1, *noise.initial.shape[1:])
        if self.states.shape != expected:
            raise InputError(
                f"the trajectory is {tuple(self.states.shape)}; this process and noise need {expected}"
            )
        check_optional_count("solve_last", self.solve_last, most=N)
        first = 0 if self.solve_last is None else N - self.solve_last
        if process.H[first] != 0:
            raise InputError(
                f"solve_last is {self.solve_last}: step {first} of a multistep scheduler needs the "
                "prediction of the step before, which a trajectory does not hold; use None"
            )
        X = self.states.to(noise.initial, copy=True)
        if first == 0:
            X[:, 0] = noise.initial
        return X, first

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        return X
