"""What is measured once per checkpoint, scheduler and step count, and needs no training.

- the mean Jacobian of each step, which makes the chord method converge in a few rounds,
- a linear guess of the clean sample from the observation,
- for each sampler its work, and how far its answer is from the sequential one: the *amplification*
  that turns the last correction of a sample into a bound on its error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from para_policy import samplers
from para_policy.deadline import Deadline, LatencyTable
from para_policy.denoiser import Denoiser
from para_policy.errors import InputError
from para_policy.noise import Noise
from para_policy.process import Process
from para_policy.samplers import (
    Callback,
    CleanSample,
    Guess,
    LowRankChord,
    Sampler,
    SampleResult,
)

_DENSE = 128
_RANK = 32
"""Above `_DENSE` action coordinates the Jacobian is kept in factors. Rank 8 of 32 loses nothing on
PushT, so 32 is ample, and 16 x 14 actions with 100 steps take 6 MB instead of 20."""

ERROR_FLOOR = 1e-5
"""Rounding of float32 networks at different batch sizes, normalised units: no bound is below it."""

_DIFFERENCE = 1e-2
_RIDGE = 1e-2


@dataclass(frozen=True)
class LinearGuess:
    """Clean sample from the condition: weight (C, d), bias (d,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, condition: Tensor) -> Tensor:
        """(batch, C) to (batch, d)."""
        return condition.flatten(1) @ self.weight.to(condition) + self.bias.to(condition)

    def start(self, condition: Tensor, process: Process, noise: Noise) -> CleanSample:
        """The initial guess of a solve, within the bounds of the process."""
        clean = self(condition).reshape(noise.initial.shape)
        return CleanSample(
            clean if process.clip is None else clean.clamp(-process.clip, process.clip)
        )


@dataclass(frozen=True)
class Variant:
    """A sampler with its options, and what it does on the calibration's observations.

    Attributes:
        sampler, options: as for `samplers.get`.
        rounds, evals: means per sample.
        amplification: error of a sample is at most this times its last correction (or
            `ERROR_FLOOR`): the largest ratio found, so that the bound holds for a new sample of the
            same kind with probability cases / (cases + 1).
        error_p95, error_max: largest coordinate difference to `sequential`, normalised units.
    """

    sampler: str
    options: Mapping[str, float | int | None] = field(default_factory=dict)
    rounds: float = 0.0
    evals: float = 0.0
    amplification: float = float("nan")
    error_p95: float = float("nan")
    error_max: float = float("nan")

    def seconds(self, latency: LatencyTable) -> float:
        """Expected time of one sample in network calls."""
        return self.rounds * latency.predict(self.evals / self.rounds)


@dataclass(frozen=True)
class Calibration:
    """Measurements for one process of one checkpoint.

    Attributes:
        scheduler, steps: which process, as in `DiffusionPolicy.sample`.
        tolerance: of the samplers of our family in `variants`.
        cases: samples that `variants` were measured on.
        matrices: (N, d, d) mean Jacobian dS_s/dx, or the factors (N, d, r), (N, r, d) of
            `LowRankChord` where d is large.
        guess: clean sample from the condition.
        variants: every sampler that was measured, `sequential` first.
    """

    scheduler: str
    steps: int
    tolerance: float
    cases: int
    matrices: Tensor | tuple[Tensor, Tensor]
    guess: LinearGuess
    variants: tuple[Variant, ...]

    def to(self, device: torch.device | str) -> Calibration:
        """A copy with its tensors on `device`."""
        guess = LinearGuess(self.guess.weight.to(device), self.guess.bias.to(device))
        matrices = (
            (self.matrices[0].to(device), self.matrices[1].to(device))
            if isinstance(self.matrices, tuple)
            else self.matrices.to(device)
        )
        return dataclasses.replace(self, matrices=matrices, guess=guess)

    def amplification(self, sampler: str, options: Mapping[str, Any]) -> float:
        """The largest one measured for `sampler`; NaN if it was not measured with such options.

        Samplers of our family were measured with several windows, and a smaller tolerance than the
        measured one only helps.
        """
        covered = {"window", "lookahead"} if self._is_ours(sampler) else set()
        if covered and options.get("tolerance", 0.0) <= self.tolerance:
            covered.add("tolerance")
        measured = [v.amplification for v in self.variants if v.sampler == sampler]
        if not measured or set(options) - covered:
            return float("nan")
        return max(measured)

    def _is_ours(self, sampler: str) -> bool:
        return any("tolerance" in v.options for v in self.variants if v.sampler == sampler)

    def sampler(self, name: str, options: Mapping[str, Any]) -> CalibratedSampler:
        """Make a sampler that starts from the linear guess and bounds its error.

        Samplers of our family run at the tolerance that was measured, unless `options` says more.

        Raises:
            InputError: for unknown names and options.
        """
        amplification = self.amplification(name, options)
        given = dict(options)
        if self._is_ours(name) or (name == "pcm" and given.get("splitting") != "identity"):
            given.setdefault("tolerance", self.tolerance)
        if "matrices" in samplers.options(name):
            given.setdefault("matrices", self.matrices)
        return CalibratedSampler(samplers.get(name, **given), name, amplification, self.guess)

    def fastest(
        self, latency: LatencyTable, advantage: float = 1.25, *, anytime: bool = False
    ) -> Variant:
        """The variant with the least expected time on a device, among those that were accurate.

        Args:
            latency: of the network on that device.
            advantage: how much faster than `sequential` it must be expected to be. The margin pays
                for the work between network calls, which the table does not know.
            anytime: it must be able to stop at a deadline, which `sequential` cannot.
        """
        reference = next(v for v in self.variants if v.sampler == "sequential")
        accurate = [
            v for v in self.variants if v is not reference and not v.error_p95 > self.tolerance
        ]
        if not accurate:
            return reference
        best = min(accurate, key=lambda variant: variant.seconds(latency))
        slower = best.seconds(latency) * advantage > reference.seconds(latency)
        return reference if slower and not anytime else best


@dataclass(frozen=True)
class CalibratedSampler:
    """A sampler with what is known about it on this checkpoint; itself a `Sampler`.

    Attributes:
        sampler: the bare one.
        name: its registry name.
        amplification: see `Variant`; NaN for no bound.
        linear_guess: replaces the prior as the start of samplers that begin there.
    """

    sampler: Sampler
    name: str
    amplification: float
    linear_guess: LinearGuess

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
        """See `Sampler`; the result has an `error_bound`.

        With a `guess` of the caller there is no bound (NaN): calibration has measured the sampler's
        own start only, and a start near a wrong mode can make corrections small too early.
        """
        own_start = guess is None
        starts_at_prior = getattr(self.sampler, "guess", None) == CleanSample()
        if guess is None and starts_at_prior and denoiser.condition is not None:
            guess = self.linear_guess.start(denoiser.condition, process, noise)
        result = self.sampler(
            denoiser, process, noise, guess=guess, deadline=deadline, callback=callback
        )
        bound = self.amplification * result.correction.clamp(min=ERROR_FLOOR)
        if self.amplification > 0:  # 0 for `sequential`
            bound = bound.clamp(min=ERROR_FLOOR)
        known = result.converged & own_start
        return dataclasses.replace(result, error_bound=torch.where(known, bound, torch.nan))


def chord_matrices(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The linear part of `chord`: `mean_jacobian`, in factors if the actions have many coordinates."""
    dense = mean_jacobian(denoiser, process, noise, trajectory, on_progress)
    if dense.shape[1] <= _DENSE:
        return dense
    factors = LowRankChord.compress(dense, process, _RANK)
    return factors.left, factors.right


def mean_jacobian(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Mean over samples of dS_s/dx along their trajectories, by finite differences.

    One batched network call for every coordinate: 1 + d calls of batch * N rows.

    Args:
        trajectory: (batch, N + 1, *shape) sequential solutions with `noise`.
        on_progress: called with the number of finished calls.

    Returns:
        (N, d, d), row i, column j: derivative of coordinate i with respect to coordinate j.
    """
    N, d = process.num_steps, noise.initial[0].numel()
    process = process.to(trajectory.device, trajectory.dtype)
    shape = trajectory.shape[2:]
    X = trajectory[:, :N].flatten(0, 1)
    sample = torch.arange(noise.batch, device=X.device).repeat_interleave(N)
    s = torch.arange(N, device=X.device).repeat(noise.batch)
    clean = denoiser.predict_clean(process, X, s, sample)
    before = clean.reshape(noise.batch, N, *shape).roll(1, dims=1).flatten(0, 1)
    base = process.mean(X, clean, before, s)
    columns = []
    for j in range(d):
        moved = X.flatten(1).clone()
        moved[:, j] += _DIFFERENCE
        moved = moved.reshape(X.shape)
        x0 = denoiser.predict_clean(process, moved, s, sample)
        slope = (process.mean(moved, x0, before, s) - base) / _DIFFERENCE
        columns.append(slope.reshape(noise.batch, N, d).mean(dim=0))
        if on_progress is not None:
            on_progress(1)
    return torch.stack(columns, dim=2)


def linear_guess(condition: Tensor, sample: Tensor) -> LinearGuess:
    """Ridge regression of clean samples (n, *shape) on conditions (n, C)."""
    x, y = condition.flatten(1).double(), sample.flatten(1).double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x = x - x_mean
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (y - y_mean))
    bias = y_mean - x_mean @ weight
    return LinearGuess(weight.to(sample.dtype), bias.to(sample.dtype))


def assess(
    sampler: str,
    options: Mapping[str, float | int | None],
    results: list[SampleResult],
    references: list[SampleResult],
) -> Variant:
    """Summarise what a sampler did on batches that `references` solved sequentially."""
    if not results:
        raise InputError("no results to assess")
    error = torch.cat(
        [
            (result.sample - exact.sample).flatten(1).abs().amax(dim=1).cpu()
            for result, exact in zip(results, references, strict=True)
        ]
    )
    correction = torch.cat([result.correction.cpu() for result in results])
    rounds = torch.cat([result.rounds for result in results]).double()
    evals = torch.cat([result.evals for result in results]).double()
    return Variant(
        sampler=sampler,
        options=dict(options),
        rounds=float(rounds.mean()),
        evals=float(evals.mean()),
        amplification=float((error / correction.clamp(min=ERROR_FLOOR)).max()),
        error_p95=float(error.quantile(0.95)),
        error_max=float(error.max()),
    )
