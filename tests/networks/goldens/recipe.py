"""Weights and inputs that both sides of a parity test make anew, so that none need be stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _uniform(generator: torch.Generator, shape: Sequence[int], std: float) -> Tensor:
    """Mean 0. Not normal numbers: their last digits depend on the processor."""
    return (torch.rand(tuple(shape), generator=generator) - 0.5) * (std * math.sqrt(12))


def fill(state: dict[str, Tensor], seed: int) -> float:
    """Overwrite all tensors of `state`, in the order of their names, with moderate numbers.

    Returns a checksum of the new values.
    """
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for name in sorted(state):
        tensor = state[name]
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.ndim > 1:
            fan_in = tensor.shape[-1] if name.endswith("pos_emb") else tensor[0].numel()
            value = _uniform(generator, tensor.shape, std=math.sqrt(2 / fan_in))
        else:
            value = _uniform(generator, tensor.shape, std=0.2)
            if name.endswith("running_var"):
                value += 1.0
            elif name.endswith("weight"):
                # Norm layers. Below 1, so that sums over many residual blocks stay moderate.
                value += 0.5
        tensor.copy_(value)
        total += value.double().abs().sum().item()
    return total


def images(count: int, height: int, width: int, seed: int) -> Tensor:
    """(count, 3, height, width) in [-1, 1]: noise over a brightness that rises to a corner.

    Every image rises in another direction, so that a flipped or shifted image is another one.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = 2 * torch.rand((count, 3, height, width), generator=generator) - 1
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)
    slopes = 2 * torch.rand((count, 3, 2, 1, 1), generator=generator) - 1
    ramp = slopes[:, :, 0] * rows + slopes[:, :, 1] * columns
    return 0.5 * noise + 0.25 * ramp
