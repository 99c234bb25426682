"""What samplers do on the observations of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from para_policy.deadline import LatencyTable
from para_policy.errors import InputError
from para_policy.samplers import SampleResult

ERROR_FLOOR = 1e-5
"""Rounding of float32 networks at different batch sizes, normalised units: no bound is below it."""


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
