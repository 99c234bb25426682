"""Memory of an engine: the copies of a network that fit."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from para_policy.inference.config import Size


def affordable(sizes: Sequence[Size], count: int) -> tuple[Size, ...]:
    """At most `count` of the sizes, but at least the smallest one, evenly spread over all."""
    if count >= len(sizes):
        return tuple(sizes)
    last = len(sizes) - 1
    return tuple(sizes[round(i * last / max(count - 1, 1))] for i in range(max(count, 1)))


def weight_bytes(body: nn.Module) -> int:
    """Size of the parameters and buffers of `body`."""
    return sum(v.nbytes for v in (*body.parameters(), *body.buffers()))
