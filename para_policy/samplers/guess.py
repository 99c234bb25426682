"""Initial guesses: where the iteration starts. They move the start, never the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from para_policy.noise import Noise
from para_policy.process import Process


class Guess(Protocol):
    """Fills states that no sweep has reached."""

    def start(self, process: Process, noise: Noise) -> Tensor:
        """Return all states (batch, N + 1, *shape); state 0 must be `noise.initial`."""
        ...

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        """Return `X` (n, N + 1, *shape) with the states cleaner than `end` (n,) guessed anew."""
        ...


@dataclass(frozen=True)
class Copy:
    """Repeat the cleanest state in flight (ParaDiGMS)."""

    def start(self, process: Process, noise: Noise) -> Tensor:
        return noise.initial[:, None].repeat_interleave(process.num_steps + 1, dim=1)

    def enter(self, X: Tensor, end: Tensor) -> Tensor:
        states = torch.arange(X.shape[1], device=X.device)
        beyond = (states > end[:, None]).reshape(X.shape[:2] + (1,) * (X.ndim - 2))
        last = X[torch.arange(len(X), device=X.device), end]
        return torch.where(beyond, last[:, None], X)
