"""In-painting: part of the clean sample is known, and the rest must fit it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.errors import InputError


@dataclass(frozen=True)
class Inpainting:
    """A clean sample that is known in part: `x0hat <- (1 - weight) x0hat + weight sample`.

    The projection sits inside the network's prediction. Where the weight is 1 the recurrence then
    draws every state from the exact posterior of the known value, and X_N is this value; the
    network sees it in every step and continues it. All samplers solve this one recurrence, so a
    parallel one gives the answer that the sequential one gives for the same noise. Weights between 0
    and 1 pull towards the known values without fixing them.

    Attributes:
        sample: (batch, *shape), normalised action units.
        weight: in [0, 1], (batch, *shape) or broadcast against it.
    Raises:
        InputError: when shapes differ, a weight is out of range or the sample is not finite.
    """

    sample: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        try:
            fits = torch.broadcast_shapes(self.weight.shape, self.sample.shape) == self.sample.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise InputError(
                f"weights {tuple(self.weight.shape)} do not fit a known sample "
                f"{tuple(self.sample.shape)}; expected the same shape, or one that broadcasts to it"
            )
        in_range = ((self.weight >= 0) & (self.weight <= 1)).all()
        if not bool(in_range & self.sample.isfinite().all()):  # a GPU is waited for once
            raise InputError(
                "the known sample holds NaN or infinity"
                if bool(in_range)
                else "a weight of the known sample is not in [0, 1]"
            )
        object.__setattr__(self, "weight", self.weight.to(self.sample).expand_as(self.sample))

    def copy(self) -> Inpainting:
        """The same values in tensors of their own."""
        return Inpainting(self.sample.clone(), self.weight.clone())

    def project(self, clean: Tensor, sample: Tensor) -> Tensor:
        """Predictions (M, *shape) of the samples `sample` (M,), with the known part put in."""
        # Exactly the prediction at weight 0, and exactly the known value at weight 1.
        return torch.lerp(clean, self.sample[sample].to(clean), self.weight[sample].to(clean))


def prefix_weights(frozen: Tensor, known: Tensor, horizon: int, *, soft: bool) -> Tensor:
    """Weights (batch, horizon, 1) that fix the first entries of a horizon.

    Args:
        frozen: (batch,) entries with weight 1.
        known: (batch,) entries that are known at all.
        soft: the entries from `frozen` to `known` get c (e^c - 1) / (e - 1), with c falling linearly
            from almost 1 to almost 0 (real-time chunking, Black et al. 2025, eq. 5); otherwise 0.
    """
    index = torch.arange(horizon, dtype=torch.float64)
    first, last = frozen.double()[:, None], known.double()[:, None]
    later = torch.zeros(())
    if soft:
        c = ((last - index) / (last - first + 1)).clamp(0, 1)
        later = c * c.expm1() / math.expm1(1)
    return torch.where(index < first, 1.0, later)[:, :, None]
