"""Splittings: the linear part Phi_s of a step that a sweep solves exactly.

A sweep evaluates the first-order defects r_s = S_s(X_s) + c_s xi_s - X_{s+1} of all rows in one
batched call. The change E of the states then obeys a linear recurrence that costs no network call,

    E_{s+1} = Phi_s E_s + r_s,      E = 0 at the first row of the window,

and the new states are X_{s+1} + E_{s+1}. Every choice of Phi has the sequential trajectory as its
only fixed point; the closer Phi_s is to dS_s/dx, the fewer sweeps it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Splitting(Protocol):
    """A choice of Phi_s."""

    def propagate(self, defect: Tensor, rows: Tensor) -> Tensor:
        """Return Phi_s E_s (n, W, *shape) for `defect` r_s (n, W, *shape) at steps `rows` (n, W)."""
        ...


@dataclass(frozen=True)
class Identity:
    """Phi = 1, Picard iteration: E is the prefix sum of the defects (ParaDiGMS, Shih et al. 2023)."""

    def propagate(self, defect: Tensor, rows: Tensor) -> Tensor:
        change = defect[:, :-1].cumsum(dim=1)
        return torch.cat([torch.zeros_like(defect[:, :1]), change], dim=1)
