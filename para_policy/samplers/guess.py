"""Initial guesses: where the iteration starts. They move the start, never the solution."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from para_policy.errors import InputError
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.splitting import scan, transfer_matrix

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process


class Guess(ABC):
    """Values of states that no sweep has reached.

    Attributes:
        rounds: rounds of its own before the solve, for most guesses none; see `Draft`.
    """

    rounds: int = 0

    @abstractmethod
    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        """Return all states (batch, N + 1, *shape), and the first step that is to be solved.

        States before that step are taken as given. Otherwise the step is 0, and state 0 must be
        `noise.initial`.
        """

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        """Return `X` (n, N + 1, *shape) with the states cleaner than `end` (n,) guessed anew."""
        return X

    def given(self, condition: Tensor | None) -> Guess:
        """The guess for these conditions (batch, ...), for one that looks at them."""
        return self

    def restarted(self, guess: Guess) -> Guess:
        """The same from another start, which for most guesses is that start alone."""
        return guess

    def instead_of_prior(self, guess: Guess) -> Guess:
        """`guess` where this one starts at the prior; this one otherwise."""
        return self

    def launch(self, k: int, solve: Any, denoiser: Denoiser, *, static: bool) -> Any:
        """Its own round `k`, below `rounds`, as `FixedPointSolve.launch`."""
        raise NotImplementedError(f"{type(self).__name__} has no rounds of its own")

    def options(self) -> Mapping[str, Any]:
        """Numbers and words for reports."""
        return {}


@dataclass(frozen=True)
class Copy(Guess):
    """The cleanest state in flight, repeated (ParaDiGMS, ParaTAA)."""

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        return noise.initial[:, None].repeat_interleave(process.num_steps + 1, dim=1), 0

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        states = torch.arange(X.shape[1], device=X.device)
        beyond = (states > end[:, None]).reshape(X.shape[:2] + (1,) * (X.ndim - 2))
        last = X[torch.arange(len(X), device=X.device), end]
        return torch.where(beyond, last[:, None], X)


@dataclass(frozen=True)
class Prior(Guess):
    """The recurrence with 0, the centre of the prior, in place of the network's prediction."""

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        return _recurrence(process, noise, None), 0

    def instead_of_prior(self, guess: Guess) -> Guess:
        return guess


@dataclass(frozen=True, eq=False)
class FromCleanSample(Guess):
    """The recurrence with a clean sample in place of the network's prediction.

    Attributes:
        sample: (batch, *shape), such as the previous chunk shifted to the present.
    """

    sample: Tensor

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        if self.sample.shape != noise.initial.shape:
            raise InputError(
                f"the guessed sample is {tuple(self.sample.shape)}; "
                f"the noise is for {tuple(noise.initial.shape)}"
            )
        return _recurrence(process, noise, self.sample.to(noise.initial)), 0


@dataclass(frozen=True, eq=False)
class LinearGuess(Guess):
    """The recurrence with a clean sample that is linear in the observation.

    Attributes:
        weight, bias: (C, d) and (d,), from calibration.
        condition: (batch, C) observations; None, where there are none, starts at the prior.
    """

    weight: Tensor
    bias: Tensor
    condition: Tensor | None = None

    def __call__(self, condition: Tensor) -> Tensor:
        """Clean samples (batch, d) for conditions (batch, C)."""
        return condition.flatten(1) @ self.weight.to(condition) + self.bias.to(condition)

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        if self.condition is None:
            return Prior().start(process, noise)
        clean = self(self.condition).reshape(noise.initial.shape)
        if process.clip is not None:
            clean = clean.clamp(-process.clip, process.clip)
        return FromCleanSample(clean).start(process, noise)

    def given(self, condition: Tensor | None) -> LinearGuess:
        return dataclasses.replace(self, condition=condition)


@dataclass(frozen=True, eq=False)
class Trajectory(Guess):
    """An existing trajectory (ParaTAA, Tang et al. 2024, section 4.2).

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
        if process.multistep and process.H[first] != 0:
            raise InputError(
                f"solve_last is {self.solve_last}: step {first} of a multistep scheduler needs the "
                "prediction of the step before, which a trajectory does not hold; use None"
            )
        X = self.states.to(noise.initial, copy=True)
        if first == 0:
            X[:, 0] = noise.initial
        return X, first


def _recurrence(process: Process, noise: Noise, clean: Tensor | None) -> Tensor:
    """(batch, N + 1, *shape) X_{s+1} = B_s X_s + (A_s + R_s + H_s) clean + c_s xi_s; None is 0."""
    steps = (process.num_steps, *(1,) * (noise.initial.ndim - 1))
    drive = process.c.reshape(steps) * noise.steps
    if clean is not None:
        drive = drive + process.clean_weight.reshape(steps) * clean[:, None]
    drive[:, 0] += process.B[0] * noise.initial
    transfer = transfer_matrix(process.B)
    rows = torch.arange(process.num_steps, device=drive.device).expand(drive.shape[:2])
    states = scan(lambda some, _: transfer @ some, drive, rows)
    return torch.cat([noise.initial[:, None], states], dim=1)
