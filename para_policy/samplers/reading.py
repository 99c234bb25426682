"""What the host reads of a device: every read waits for all that was launched before, so few are made."""

from __future__ import annotations

import torch
from torch import Tensor


def on_host(*values: Tensor) -> list[Tensor]:
    """Copies of tensors of one device on the host, brought there by a single transfer."""
    packed = torch.cat([value.contiguous().flatten().view(torch.uint8) for value in values]).cpu()
    parts = packed.split([value.numel() * value.element_size() for value in values])
    return [
        # A copy of its own begins where numbers of any size may.
        part.clone().view(value.dtype).reshape(value.shape)
        for part, value in zip(parts, values, strict=True)
    ]


def places(mask: Tensor, count: int) -> Tensor:
    """(count,) places of a mask (M,) that is true so often; unlike `nonzero` it reads nothing back.

    >>> places(torch.tensor([False, True, True]), 2)
    tensor([1, 2])
    """
    # The entry after the last one takes what is not chosen.
    target = (mask.cumsum(dim=0) - 1).masked_fill(~mask, count)
    found = torch.zeros(count + 1, dtype=torch.int64, device=mask.device)
    return found.scatter_(0, target, torch.arange(len(mask), device=mask.device))[:count]
