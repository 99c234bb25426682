"""A linear guess of the clean sample from the observation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import CleanSample

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


def fit_linear_guess(condition: Tensor, sample: Tensor) -> LinearGuess:
    """Ridge regression of clean samples (n, *shape) on conditions (n, C)."""
    x, y = condition.flatten(1).double(), sample.flatten(1).double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x = x - x_mean
    gram = x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.T @ (y - y_mean))
    bias = y_mean - x_mean @ weight
    return LinearGuess(weight.to(sample.dtype), bias.to(sample.dtype))
