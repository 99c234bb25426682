"""Triangular Anderson acceleration (Tang et al. 2024, section 3.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from para_policy.samplers.checks import check_count, check_number


@dataclass(frozen=True)
class TriangularAnderson:
    """Mix each state with its own earlier iterates, using information from noisier states only.

    State s + 1 minimises the residual of the states up to itself over its stored differences: one
    small least-squares problem per state (eq. 2.2 and 2.3 of the paper's block triangular form). A
    global mixture would let unconverged clean states spoil converged noisy ones.

    Attributes:
        history: iterates that are kept, m >= 2; m - 1 differences.
        regularisation: of the Gram matrix, relative to its mean diagonal entry. The paper's
            absolute 1e-3 would switch the acceleration off for action chunks.
    """

    history: int = 2
    regularisation: float = 1e-6

    def __post_init__(self) -> None:
        check_count("history", self.history, least=2)
        check_number("regularisation", self.regularisation, zero_allowed=False)

    def memory(self) -> Memory:
        """Return an empty memory for one solve."""
        return Memory(self)


@dataclass
class Memory:
    """The last iterates of a solve, (batch, N, d) each, and where they are valid (batch, N)."""

    parts: TriangularAnderson
    states: list[Tensor] = field(default_factory=list)
    corrections: list[Tensor] = field(default_factory=list)
    valid: list[Tensor] = field(default_factory=list)

    def mix(
        self, live: Tensor, rows: Tensor, valid: Tensor, X: Tensor, correction: Tensor
    ) -> Tensor:
        """Store a round and return what to subtract from its corrections (n, W, *shape).

        Args:
            live: (n,) samples of the batch that took part.
            rows, valid: (n, W) steps, and which of them are in the window.
            X: (batch, N + 1, *shape) states before the sweep.
            correction: (n, W, *shape) plain correction of state s + 1.
        """
        batch, N = X.shape[0], X.shape[1] - 1
        stored = X.new_zeros(batch, N, correction[0, 0].numel())
        in_flight = torch.zeros(batch, N, dtype=torch.bool, device=X.device)
        i, s = live[:, None].expand_as(rows)[valid], rows[valid]
        stored[i, s] = correction.flatten(2)[valid]
        in_flight[i, s] = True
        for kept, new in (
            (self.states, X[:, 1:].flatten(2).clone()),
            (self.corrections, stored),
            (self.valid, in_flight),
        ):
            kept.append(new)
            del kept[: -self.parts.history]
        if len(self.states) < 2:
            return torch.zeros_like(correction)
        mixed = self._subtract(live)
        return mixed[torch.arange(len(live), device=X.device)[:, None], rows].reshape(
            correction.shape
        )

    def _subtract(self, live: Tensor) -> Tensor:
        """(n, N, d) sum_i gamma_i (dX_i + dR_i), 0 where a state has no history."""
        R = self.corrections[-1][live]
        now = self.valid[-1]
        both = [(a & b & now)[live] for a, b in itertools.pairwise(self.valid)]
        own = torch.stack(both, dim=2).to(
            R.dtype
        )  # (n, N, m - 1), 1 where a state has a difference
        dX = _differences(self.states, live) * own[..., None]
        dR = _differences(self.corrections, live) * own[..., None]
        # Prefix sums over s: state s + 1 sees residuals of states up to itself, along its own
        # differences only.
        gram = torch.einsum("nsid,nsjd->nsij", dR, dR).cumsum(dim=1)
        gram = gram * own[..., None] * own[..., None, :]
        right = torch.einsum("nsid,nsd->nsi", dR, R).cumsum(dim=1) * own
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        scale = trace / own.sum(dim=-1).clamp(min=1)
        damping = self.parts.regularisation * scale + torch.finfo(gram.dtype).tiny
        gram.diagonal(dim1=-2, dim2=-1).add_(damping[..., None])
        gamma = torch.linalg.solve_ex(gram, right)[0]
        mixed = torch.einsum("nsi,nsid->nsd", gamma, dX + dR)
        usable = mixed.isfinite().all(dim=2, keepdim=True)
        return torch.where(usable, mixed, 0.0)


def _differences(kept: list[Tensor], live: Tensor) -> Tensor:
    """(n, N, m - 1, d) newer minus older."""
    return torch.stack(
        [newer[live] - older[live] for older, newer in itertools.pairwise(kept)], dim=2
    )
