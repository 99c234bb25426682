"""Sparse look-ahead: beyond the window only some rows are evaluated, the others are interpolated.

The clean end of a trajectory changes until the noisy end has settled, so to evaluate all of it in
every round is waste. A few rows tell enough to move it along.
"""

from __future__ import annotations

import torch
from torch import Tensor


def evaluated(rows: Tensor, valid: Tensor, window: int, stride: int, N: int) -> Tensor:
    """Which rows (n, span) the network sees: the window, every `stride`-th row after it, the last."""
    offset = torch.arange(rows.shape[1], device=rows.device)
    chosen = (offset < window) | ((offset - window) % stride == 0)
    return valid & (chosen | (rows == N - 1))


def interpolate(defect: Tensor, seen: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Fill the defects of rows that were not evaluated.

    A defect is `weight` times the error of the clean-sample prediction, and it is this error that
    varies smoothly along the steps.

    Args:
        defect: (n, span, *shape), meaningful where `seen`.
        seen: (n, span) bool; the first row, and the last valid one, always are.
        rows: (n, span) steps.
        weight: (N,) clean-sample weight of each step.
    """
    position = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    span = rows.shape[1]
    before = torch.where(seen, position, 0).cummax(dim=1).values
    after = torch.where(seen, position, span - 1).flip(1).cummin(dim=1).values.flip(1)
    shape = rows.shape + (1,) * (defect.ndim - 2)
    weight = weight[rows].reshape(shape)
    error = torch.where(weight != 0, defect / weight, 0.0)  # no weight: nothing to learn from
    share = (position - before) / (after - before).clamp(min=1)
    sample = torch.arange(len(rows), device=rows.device)[:, None]
    between = torch.lerp(
        error[sample, before], error[sample, after], share.reshape(shape).to(error)
    )
    return torch.where(seen.reshape(shape), defect, between * weight)
