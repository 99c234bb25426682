"""Calibration: all measurements for one process of one checkpoint, and samplers that use them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from para_policy import samplers
from para_policy.calibration.profile import Variant
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers import Certificate, LinearGuess, Nodes, Sampler
from para_policy.samplers.deadline import LatencyTable


@dataclass(frozen=True, eq=False)
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
        nodes: of `collocation`; None for files of earlier releases.
        fingerprint: of the process, see `Process`; empty for files of earlier releases.
    """

    scheduler: str
    steps: int
    tolerance: float
    cases: int
    matrices: Tensor | tuple[Tensor, Tensor]
    guess: LinearGuess
    variants: tuple[Variant, ...]
    nodes: Nodes | None = None
    fingerprint: tuple[float, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it holds all that is measured now; files of earlier releases may not."""
        checked = self.nodes is not None and self.nodes.defect is not None
        return checked and bool(self.fingerprint)

    def fits(self, process: Process) -> bool:
        """Whether it was measured on these steps, as far as it says so."""
        return not self.fingerprint or process.agrees_with(self.fingerprint)

    def is_that_of(self, other: Calibration) -> bool:
        """Whether `other` was measured with the same weights, as a second reading of the same file was.

        Its mean Jacobians and its guess would be others.
        """
        if self is other:
            return True
        mine, theirs = self._fitted(), other._fitted()
        return [part.shape for part in mine] == [part.shape for part in theirs] and all(
            torch.equal(a, b.to(a)) for a, b in zip(mine, theirs, strict=True)
        )

    def _fitted(self) -> tuple[Tensor, ...]:
        first, *rest = self.matrices if isinstance(self.matrices, tuple) else (self.matrices,)
        return first, *rest, self.guess.weight, self.guess.bias

    def to(self, device: torch.device | str) -> Calibration:
        """A copy with its tensors on `device`."""
        guess = LinearGuess(self.guess.weight.to(device), self.guess.bias.to(device))
        matrices = (
            (self.matrices[0].to(device), self.matrices[1].to(device))
            if isinstance(self.matrices, tuple)
            else self.matrices.to(device)
        )
        nodes = None if self.nodes is None else self.nodes.to(device)
        return dataclasses.replace(self, matrices=matrices, guess=guess, nodes=nodes)

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

    def understood(self, sampler: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `options` that mean with `sampler` what they mean with our family: `tolerance` of the
        papers' samplers is in other units."""
        known = samplers.options(sampler)
        ours = self._is_ours(sampler)
        return {k: v for k, v in options.items() if k in known and (ours or k != "tolerance")}

    def _is_ours(self, sampler: str) -> bool:
        return any("tolerance" in v.options for v in self.variants if v.sampler == sampler)

    def sampler(self, name: str, options: Mapping[str, Any]) -> Sampler:
        """Make a sampler that starts from the linear guess and bounds its error.

        Samplers of our family run at the tolerance that was measured, unless `options` says more.

        Raises:
            InputError: for unknown names and options.
        """
        given = dict(options)
        if self._is_ours(name) or (name == "pcm" and given.get("splitting") != "identity"):
            given.setdefault("tolerance", self.tolerance)
        if "matrices" in samplers.options(name):
            given.setdefault("matrices", self.matrices)
        if "nodes" in samplers.options(name):
            if self.nodes is None:
                raise InputError(
                    f"sampler {name!r} needs nodes, and the calibration for {self.scheduler} with "
                    f"{self.steps} steps has none; run para-policy calibrate again"
                )
            given.setdefault("nodes", self.nodes)
            if self.nodes.defect is None:
                warnings.warn(
                    f"the calibration for {self.scheduler} with {self.steps} steps is of an earlier "
                    f"release: {name!r} cannot check what lies between its nodes, and may take a wrong "
                    "chunk for an exact one; run para-policy calibrate again",
                    stacklevel=2,
                )
        made = samplers.get(name, **given).starting_at(self.guess)
        # Once the options are known to be such as it takes.
        certificate = Certificate(self.amplification(name, options), self)
        return dataclasses.replace(made, certificate=certificate)

    def fastest(
        self,
        latency: LatencyTable,
        advantage: float = 1.25,
        *,
        deadline_s: float | None = None,
        tolerance: float | None = None,
    ) -> Variant:
        """The variant with the least expected time on a device, among those that were accurate.

        Args:
            latency: of the network on that device.
            advantage: how much faster than `sequential` it must be expected to be. The margin pays
                for the work between network calls, which the table does not know.
            deadline_s: it must be able to stop then, which `sequential` cannot. Of those that are
                expected to be cut off, the one with the least error is preferred.
            tolerance: that samplers of our family will be given; None for the one that was measured.
                The others, which know no such, must have been as accurate as it is small.
        """
        reference = next(v for v in self.variants if v.sampler == "sequential")
        small = self.tolerance if tolerance is None else min(tolerance, self.tolerance)
        accurate = [
            v
            for v in self.variants
            if v is not reference
            and not v.error_p95 > (self.tolerance if self._is_ours(v.sampler) else small)
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
