"""Call of a policy's sampling method, whatever project the policy is from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """Arguments of a policy's sampling method.

    Attributes:
        shape: (batch, horizon, action_dim) of the sample.
        dtype, device: of the sample.
        condition: (batch, ...) what the network is conditioned on; None for nothing.
        generator: None for torch's global one.
        noise: X_0 as the caller gave it; None to draw it.
        step_options: what the caller hands on to `scheduler.step`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    condition: Tensor | None
    generator: torch.Generator | None
    noise: Tensor | None = None
    step_options: Mapping[str, Any] = field(default_factory=dict)

    def initial(self) -> Tensor:
        """X_0, drawn as both projects draw it."""
        if self.noise is not None:
            return self.noise
        return torch.randn(
            size=self.shape, dtype=self.dtype, device=self.device, generator=self.generator
        )

    def without_noise(self, rows: int | None = None) -> Call:
        """What calibration needs, copied; the first `rows` of it, or all."""
        condition = None if self.condition is None else self.condition[:rows].detach().clone()
        return dataclasses.replace(self, condition=condition, generator=None, noise=None)
