"""Triangular Anderson acceleration (Tang et al. 2024, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

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

    def memory(self, X: Tensor) -> Memory:
        """Return an empty memory for a solve with states like `X` (batch, N + 1, *shape)."""
        return Memory(self, X)


class Memory:
    """The last iterates of a solve and their corrections, and where these are valid.

    Everything keeps its place in memory, the newest last, so that a round can be captured.
    """

    def __init__(self, parts: TriangularAnderson, X: Tensor) -> None:
        self.parts = parts
        batch, states = X.shape[:2]
        # The place after the last one takes what is not in the window.
        kept = (parts.history, batch, states)
        self._states = X.new_zeros(*kept, X[0, 0].numel())
        self._corrections = torch.zeros_like(self._states)
        self._valid = torch.zeros(kept, dtype=torch.bool, device=X.device)

    def clear(self) -> None:
        """Forget all."""
        self._valid.zero_()

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
        N = X.shape[1] - 1
        for kept in (self._states, self._corrections, self._valid):
            kept[:-1] = kept[1:].clone()
        self._states[-1, :, :N] = X[:, 1:].flatten(2)
        self._corrections[-1].zero_()
        self._valid[-1].zero_()
        place = live[:, None], torch.where(valid, rows, N)
        self._corrections[-1][place] = correction.flatten(2)
        self._valid[-1][place] = valid
        self._valid[-1, :, N] = False
        return self._subtract(live)[
            torch.arange(len(live), device=X.device)[:, None], rows
        ].reshape(correction.shape)

    def _subtract(self, live: Tensor) -> Tensor:
        """(n, N, d) sum_i gamma_i (dX_i + dR_i), 0 where a state has no history."""
        valid = self._valid[:, live, :-1]
        R = self._corrections[-1, live, :-1]
        # (n, N, m - 1), 1 where a state has a difference
        own = (valid[:-1] & valid[1:] & valid[-1:]).movedim(0, 2).to(R.dtype)
        dX = _differences(self._states, live) * own[..., None]
        dR = _differences(self._corrections, live) * own[..., None]
        # Prefix sums over s: state s + 1 sees residuals of states up to itself, along its own
        # differences only.
        gram = torch.einsum("nsid,nsjd->nsij", dR, dR).cumsum(dim=1)
        gram = gram * own[..., None] * own[..., None, :]
        right = torch.einsum("nsid,nsd->nsi", dR, R).cumsum(dim=1) * own
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        scale = trace / own.sum(dim=-1).clamp(min=1)
        damping = self.parts.regularisation * scale + torch.finfo(gram.dtype).tiny
        gram.diagonal(dim1=-2, dim2=-1).add_(damping[..., None])
        gamma = _solve(gram, right)
        mixed = torch.einsum("nsi,nsid->nsd", gamma, dX + dR)
        usable = mixed.isfinite().all(dim=2, keepdim=True)
        return torch.where(usable, mixed, 0.0)


def _differences(kept: Tensor, live: Tensor) -> Tensor:
    """(n, N, m - 1, d) newer minus older."""
    return kept[:, live, :-1].diff(dim=0).movedim(0, 2)


def _solve(gram: Tensor, right: Tensor) -> Tensor:
    """Solutions (..., m) of symmetric positive definite systems (..., m, m), m being small.

    Elimination needs no pivots there. Library routines for batches may wait for the GPU.
    """
    m = right.shape[-1]
    rows = torch.cat([gram, right[..., None]], dim=-1).unbind(dim=-2)
    done: list[Tensor] = []
    for k in range(m):
        row = rows[k]
        for j, pivot in enumerate(done):
            row = row - row[..., j, None] * pivot
        done.append(row / row[..., k, None])
    gamma: list[Tensor] = []
    for k in reversed(range(m)):
        value = done[k][..., m]
        for j, known in enumerate(gamma):
            value = value - done[k][..., m - 1 - j] * known
        gamma.append(value)
    return torch.stack(gamma[::-1], dim=-1)
