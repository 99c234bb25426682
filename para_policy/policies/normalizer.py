"""Normalisation of observations and actions: one scale and one offset per coordinate.

Min-max, mean-std and quantile statistics all become such a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from para_policy.errors import DataError, InputError, shown

# Coordinates that hardly move are only shifted: dividing by their range would amplify noise.
_MIN_RANGE = 1e-4


@dataclass(frozen=True)
class LinearNormalizer:
    """`normalise(x) = x * scale + offset`, both (D,), or (C,) for images, one pair per channel."""

    scale: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, values: np.ndarray) -> LinearNormalizer:
        """Map the range of `values` (n, D) to [-1, 1].

        The sampler clips actions to [-1, 1], so that every reachable one must lie inside
        (Chi et al. 2023).

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

    def check(self) -> None:
        """Raise InputError for statistics that no data has: both must be finite and the scale above
        0, also as float32, and so must what `unnormalize` makes of a normalised value."""
        scale, offset = self.scale.float(), self.offset.float()
        finite = all(x.isfinite().all() for x in (scale, offset, 1 / scale, offset / scale))
        if not finite or (scale <= 0).any():
            raise InputError(
                f"scale {shown(scale.tolist())} and offset {shown(offset.tolist())} are no statistics "
                "of data; expected finite numbers, and every scale above 0"
            )

    def normalize(self, x: Tensor) -> Tensor:
        """Physical units (..., D) to normalised ones."""
        return x * self.scale + self.offset

    def unnormalize(self, x: Tensor) -> Tensor:
        """Normalised units (..., D) to physical ones."""
        return (x - self.offset) / self.scale

    def normalize_images(self, x: Tensor) -> Tensor:
        """Pixels (..., C, H, W), in [0, 1], to normalised ones."""
        return x * self.scale[:, None, None] + self.offset[:, None, None]

    @cached_property
    def on_host(self) -> LinearNormalizer:
        """The same beside numpy: a GPU is not waited for to read it."""
        return self.to("cpu")

    def to(self, device: torch.device | str) -> LinearNormalizer:
        return LinearNormalizer(self.scale.to(device), self.offset.to(device))
