"""Call of a policy's sampling method, whatever project the policy is from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
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
        loop_options: what else the caller says about the loop, such as options of `scheduler.step`.
        network: `network(x, t, condition)` of this call, where it differs from call to call; None for
            that of the convention. What does not fit into one condition, a cache for example, can be
            kept there, with (batch,) indices as the condition.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    condition: Tensor | None
    generator: torch.Generator | None = None
    noise: Tensor | None = None
    loop_options: Mapping[str, Any] = field(default_factory=dict)
    network: Callable[..., Tensor] | None = None

    @property
    def place(self) -> tuple[torch.dtype, torch.device]:
        """Where the policy is."""
        return self.dtype, self.device

    def initial(self) -> Tensor:
        """X_0, drawn as the projects draw it."""
        if self.noise is not None:
            return self.noise
        return torch.randn(
            size=self.shape, dtype=self.dtype, device=self.device, generator=self.generator
        )

    def without_noise(self, rows: int | None = None) -> Call:
        """What calibration needs, copied; the first `rows` of it, or all."""
        condition = None if self.condition is None else self.condition[:rows].detach().clone()
        return dataclasses.replace(self, condition=condition, generator=None, noise=None)
