"""Min-max normalisation to [-1, 1], one scale and offset per coordinate.

Min-max, not mean-std: the sampler clips predictions to [-1, 1], so every reachable action
must lie inside (Chi et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from para_policy.errors import DataError

# Coordinates that hardly move are only shifted: dividing by their range would amplify noise.
_MIN_RANGE = 1e-4


@dataclass(frozen=True)
class MinMaxNormalizer:
    """`normalise(x) = x * scale + offset`, both tensors of the feature's shape (D,)."""

    scale: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, values: np.ndarray) -> MinMaxNormalizer:
        """Fit on `values` (n, D).

        Raises:
            DataError: if a value is not finite.
        """
        if not np.isfinite(values).all():
            raise DataError(
                "the data to normalise holds NaN or infinite values; remove those steps"
            )
        low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
        moving = (high - low) > _MIN_RANGE
        scale = np.where(moving, 2.0 / np.where(moving, high - low, 1.0), 1.0)
        offset = np.where(moving, -1.0 - scale * low, -(high + low) / 2)
        return cls(
            torch.tensor(scale, dtype=torch.float32), torch.tensor(offset, dtype=torch.float32)
        )

    def normalize(self, x: Tensor) -> Tensor:
        """Physical units (..., D) to [-1, 1]."""
        return x * self.scale + self.offset

    def unnormalize(self, x: Tensor) -> Tensor:
        """[-1, 1] (..., D) to physical units."""
        return (x - self.offset) / self.scale

    def to(self, device: torch.device | str) -> MinMaxNormalizer:
        return MinMaxNormalizer(self.scale.to(device), self.offset.to(device))
