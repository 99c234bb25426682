"""Certificate: a bound on what a converged sample differs by from the sequential one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from para_policy.samplers.result import SampleResult

ERROR_FLOOR = 1e-5
"""Rounding of float32 networks at different batch sizes, normalised units: no bound is below it."""


@dataclass(frozen=True)
class Certificate:
    """Error at most `amplification` times the last correction of a sample.

    It was measured for one sampler from its own start, on one process of one checkpoint.

    Attributes:
        amplification: the largest ratio of error to correction that calibration has found; 0 for
            `sequential`, NaN where nothing was measured.
        calibration: that has measured it, a `calibration.Calibration`, for those who must know whether it
            is theirs.
    """

    amplification: float
    calibration: Any = field(default=None, compare=False, repr=False)

    @property
    def exact(self) -> bool:
        """Whether it is that of `sequential`, which holds for any network."""
        return self.amplification == 0

    def bound(self, result: SampleResult, *, own_start: bool) -> Tensor:
        """(batch,) largest error of any coordinate, normalised action units; NaN where there is none.

        Args:
            own_start: False for a guess of the caller. Calibration has measured the sampler's own
                start only, and a start near a wrong mode can make corrections small too early.
        """
        bound = self.amplification * result.correction.clamp(min=ERROR_FLOOR)
        if not self.exact:
            bound = bound.clamp(min=ERROR_FLOOR)
        return torch.where(result.converged & own_start, bound, torch.nan)
