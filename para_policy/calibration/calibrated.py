"""All measurements for one process, and samplers that use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from para_policy import samplers
from para_policy.calibration.linear_guess import LinearGuess
from para_policy.calibration.profile import ERROR_FLOOR, Variant
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import Callback, CleanSample, Guess, Sampler, SampleResult
from para_policy.samplers.deadline import Deadline, LatencyTable


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
        self, latency: LatencyTable, advantage: float = 1.25, *, deadline_s: float | None = None
    ) -> Variant:
        """The variant with the least expected time on a device, among those that were accurate.

        Args:
            latency: of the network on that device.
            advantage: how much faster than `sequential` it must be expected to be. The margin pays
                for the work between network calls, which the table does not know.
            deadline_s: it must be able to stop then, which `sequential` cannot. Of those that are
                expected to be cut off, the one with the least error is preferred.
        """
        reference = next(v for v in self.variants if v.sampler == "sequential")
        accurate = [
            v for v in self.variants if v is not reference and not v.error_p95 > self.tolerance
        ]
        if not accurate:
            return reference
        if deadline_s is not None:
            within = deadline_s / advantage
            return min(accurate, key=lambda v: (self._left(v, within, latency), v.seconds(latency)))
        best = min(accurate, key=lambda variant: variant.seconds(latency))
        slower = best.seconds(latency) * advantage > reference.seconds(latency)
        return reference if slower else best

    def _left(self, variant: Variant, seconds: float, latency: LatencyTable) -> float:
        """Expected error after so many seconds; below the tolerance all are as good."""
        error = variant.error_within(seconds, latency)
        return error if error > self.tolerance else self.tolerance  # unknown (NaN) passes, as above


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

    @property
    def same_sample(self) -> bool:
        return self.sampler.same_sample

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
