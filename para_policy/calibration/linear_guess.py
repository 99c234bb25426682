"""Fit of the linear guess: clean samples from observations."""

from __future__ import annotations

import torch
from torch import Tensor

from para_policy.samplers import LinearGuess

_RIDGE = 1e-2


def fit_linear_guess(condition: Tensor, sample: Tensor) -> LinearGuess:
    """Ridge regression of clean samples (n, *shape) on conditions (n, C)."""
    x, y = condition.flatten(1).double(), sample.flatten(1).double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x = x - x_mean
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (y - y_mean))
    bias = y_mean - x_mean @ weight
    return LinearGuess(weight.to(sample.dtype), bias.to(sample.dtype))
