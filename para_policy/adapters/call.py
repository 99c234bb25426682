"""Call of a policy's sampling method, whatever project the policy is from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

Condition: TypeAlias = Any
"""What a network is conditioned on: a tensor (batch, ...), or a dictionary, list or tuple of such, of
any depth; None for nothing."""


@dataclass(frozen=True)
class Call:
    """Arguments of a policy's sampling method.

    Attributes:
        shape: (batch, horizon, action_dim) of the sample.
        dtype, device: of the sample.
        condition: see `Condition`.
        generator: None for torch's global one.
        noise: X_0 as the caller gave it; None to draw it.
        loop_options: what else the caller says about the loop, such as options of `scheduler.step`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    condition: Condition
    generator: torch.Generator | None = None
    noise: Tensor | None = None
    loop_options: Mapping[str, Any] = field(default_factory=dict)

    def initial(self) -> Tensor:
        """X_0, drawn as the projects draw it."""
        if self.noise is not None:
            return self.noise
        return torch.randn(
            size=self.shape, dtype=self.dtype, device=self.device, generator=self.generator
        )

    def without_noise(self, rows: int | None = None) -> Call:
        """What calibration needs, copied; the first `rows` of it, or all."""
        condition = each(lambda part: part[:rows].detach().clone(), self.condition)
        return dataclasses.replace(self, condition=condition, generator=None, noise=None)


def each(change: Callable[[Tensor], Tensor], condition: Condition) -> Condition:
    """A condition with every tensor in it changed.

    >>> each(lambda part: part[[0, 0]], {"cache": [torch.tensor([[1.0], [2.0]])], "mask": None})
    {'cache': [tensor([[1.],
            [1.]])], 'mask': None}
    """
    if isinstance(condition, Tensor):
        return change(condition)
    if isinstance(condition, Mapping):
        return {key: each(change, part) for key, part in condition.items()}
    if isinstance(condition, (list, tuple)):
        return type(condition)([each(change, part) for part in condition])
    return condition
