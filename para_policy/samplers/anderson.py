"""Triangular Anderson acceleration (Tang et al. 2024, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from para_policy.samplers.acceptance import is_finite
from para_policy.samplers.checks import check_count, check_number

if TYPE_CHECKING:
    from para_policy.samplers.window import Rows


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
        history = min(parts.history, states)  # after so many rounds all is solved
        # States and corrections. The place after the last one takes what is not in the window.
        self._kept = X.new_zeros(history, 2, batch, states, X[0, 0].numel())
        valid = (history, batch, states)
        self._valid = torch.zeros(valid, dtype=torch.bool, device=X.device)

    def clear(self) -> None:
        """Forget all."""
        self._valid.zero_()

    def mix(self, rows: Rows, X: Tensor, correction: Tensor) -> Tensor:
        """Store a round and return what to subtract from its corrections (n, span, *shape).

        Args:
            rows: of the round, those to be mixed among them.
            X: (batch, N + 1, *shape) states before the sweep.
            correction: (n, span, *shape) plain correction of state s + 1.
        """
        assert rows.mixed is not None
        N = X.shape[1] - 1
        for kept in (self._kept, self._valid):
            kept[:-1] = kept[1:].clone()
        newest, valid = self._kept[-1], self._valid[-1]
        newest[0, :, :N] = X[:, 1:].flatten(2)
        newest[1].zero_()
        valid.zero_()
        live = rows.live[:, None]
        place = live, rows.steps.masked_fill(~rows.mixed, N)
        newest[1][place] = correction.flatten(2)
        valid[place] = rows.mixed
        own = torch.arange(len(live), device=X.device)[:, None]
        return self._subtract(rows)[own, rows.steps].reshape(correction.shape)

    def _subtract(self, rows: Rows) -> Tensor:
        """(n, N, d) sum_i gamma_i (dX_i + dR_i), 0 where a state has no history."""
        at = slice(None) if rows.whole else rows.live
        valid, kept = self._valid[:, at, :-1], self._kept[:, :, at, :-1]
        R = kept[-1, 1]
        # (n, N, m - 1), 1 where a state has a difference
        own = (valid[:-1] & valid[1:] & valid[-1:]).movedim(0, 2).to(R.dtype)
        # Newer minus older.
        dX, dR = (kept.diff(dim=0).movedim(0, 3) * own[..., None]).unbind(0)
        # Prefix sums over s: state s + 1 sees residuals of states up to itself, along its own
        # differences only.
        gram = (dR @ dR.mT).cumsum(dim=1) * own[..., None] * own[..., None, :]
        right = (dR @ R[..., None])[..., 0].cumsum(dim=1) * own
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
        scale = trace / own.sum(dim=-1).clamp(min=1)
        damping = self.parts.regularisation * scale + torch.finfo(gram.dtype).tiny
        gram.diagonal(dim1=-2, dim2=-1).add_(damping[..., None])
        gamma = _solve(gram, right)
        mixed = (gamma[..., None, :] @ (dX + dR))[..., 0, :]
        usable = is_finite(mixed.abs().amax(dim=2, keepdim=True))
        return mixed.masked_fill(~usable, 0.0)


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
