"""The choice of nodes for `collocation`, from trajectories alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import Nodes

_TRIED = 48
"""Places that are tried for a new node between two others."""
_HIGH = 0.95
_NEVER = 1e9
"""An error that is above every tolerance; files hold no infinity."""


def fit_nodes(
    process: Process,
    noises: Sequence[Noise],
    trajectories: Sequence[Tensor],
    clean: Tensor,
    matrices: Tensor | tuple[Tensor, Tensor],
    spread: Tensor,
) -> Nodes:
    """Put nodes where interpolating the remainder costs X_N most, until all steps are nodes.

    Between two nodes the cost is what X_N is off by, to first order, when the remainders of a
    trajectory are interpolated there. The interval with the largest root mean square over the
    trajectories is split first, where its halves cost least. (To lower the total of all intervals
    instead overfits: a total can be small because costs of a few samples happen to cancel.)

    Args:
        noises, trajectories: batches of sequential solutions (batch, N + 1, *shape).
        clean: (n, d) clean samples that the linear model is made around, as at the start of a solve.
        matrices: (N, d, d) mean Jacobians, or their factors as in `LowRankChord`.
        spread: (N,) root mean square of their deviations, see `jacobians`.
    """
    N = process.num_steps
    process = process.to(trajectories[0].device, torch.float64)
    phi = _dense(process, matrices)
    after = _products(phi)
    sensitivity = torch.linalg.matrix_norm(after, 2) * spread.to(phi)
    if bool((process.H != 0).any()):  # every row needs its neighbours: all steps are nodes
        return Nodes(
            torch.arange(N), torch.full((N,), _NEVER), sensitivity.float().cpu(), torch.zeros(N)
        )
    X = torch.cat(list(trajectories)).flatten(2).double()
    xi = torch.cat([noise.steps for noise in noises]).flatten(2).double()
    e = _remainders(process, phi, X, xi, clean.double())
    w = process.clean_weight
    order, error, roughness = _split(e, w[:, None, None] * after)
    defect = w.abs() * roughness.to(w)
    return Nodes(
        *(value.cpu() for value in (order, error.float(), sensitivity.float(), defect.float()))
    )


def _dense(process: Process, matrices: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """(N, d, d) float64."""
    if isinstance(matrices, Tensor):
        return matrices.to(process.B)
    left, right = (factor.to(process.B) for factor in matrices)
    unit = torch.eye(left.shape[1]).to(left)
    return process.B[:, None, None] * unit + left @ right


def _products(phi: Tensor) -> Tensor:
    """(N, d, d) Phi_{N-1} .. Phi_{s+1}: how a change of X_{s+1} reaches X_N."""
    after = [torch.eye(phi.shape[1]).to(phi)]
    for matrix in phi.flip(0)[:-1]:
        after.append(after[-1] @ matrix)
    return torch.stack(after[::-1])


def _remainders(process: Process, phi: Tensor, X: Tensor, xi: Tensor, clean: Tensor) -> Tensor:
    """(n, N, d) e_s of X_{s+1} = B_s X_s + w_s (r + G_s (X_s - signal_s r) + e_s) + c_s xi_s,
    G_s = (Phi_s - B_s) / w_s; 0 where w_s is."""
    around = X[:, :-1] - process.signal[:-1, None] * clean[:, None]
    linear = torch.einsum("sij,nsj->nsi", phi, around) - process.B[:, None] * around
    w = process.clean_weight[:, None]
    driven = process.B[:, None] * X[:, :-1] + w * clean[:, None] + process.c[:, None] * xi
    return torch.where(w != 0, (X[:, 1:] - driven - linear) / w, 0.0)


def _split(e: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order of the nodes (N,), the error (N,) with the first 1, 2 .. N of them, and (N,) what e_s is
    interpolated wrong by until s is a node.

    Args:
        e: (n, N, d) remainders.
        reach: (N, d, d) how a remainder reaches X_N.
    """
    N = e.shape[1]
    if N < 3:
        return torch.arange(N), torch.tensor([_NEVER, 0.0][:N]), torch.zeros(N)
    place = torch.arange(N).to(e)[:, None, None]
    whole, moment = _prefix(reach), _prefix(place * reach)
    exact = _prefix(torch.einsum("sij,nsj->sni", reach, e))

    @cache
    def cost(a: int, b: int) -> Tensor:
        """(n, d) interpolated minus exact, of the steps between the nodes a and b."""
        m0, m1 = whole[b] - whole[a + 1], moment[b] - moment[a + 1]
        left, right = (b * m0 - m1) / (b - a), (m1 - a * m0) / (b - a)
        return e[:, a] @ left.T + e[:, b] @ right.T - (exact[b] - exact[a + 1])

    @cache
    def score(a: int, b: int) -> float:
        return float(cost(a, b).abs().amax(dim=1).square().mean()) if b > a + 1 else 0.0

    def best(a: int, b: int) -> int:
        tried = torch.linspace(a + 1, b - 1, min(_TRIED, b - a - 1)).round().int().tolist()
        return min(tried, key=lambda c: score(a, c) + score(c, b))

    order, intervals = [0, N - 1], {(0, N - 1): score(0, N - 1)}
    roughness = torch.zeros(N).to(e)
    total = cost(0, N - 1)
    error = [_NEVER, float(total.abs().amax(dim=1).quantile(_HIGH))]
    while intervals:
        a, b = max(intervals, key=lambda ends: intervals[ends])
        del intervals[a, b]
        c = best(a, b)
        wrong = torch.lerp(e[:, a], e[:, b], (c - a) / (b - a)) - e[:, c]
        roughness[c] = wrong.abs().amax(dim=1).quantile(_HIGH)
        total = total - cost(a, b)
        for left, right in ((a, c), (c, b)):
            if right > left + 1:
                total = total + cost(left, right)
                intervals[left, right] = score(left, right)
        order.append(c)
        error.append(float(total.abs().amax(dim=1).quantile(_HIGH)))
    error[-1] = 0.0
    # A total that is small by luck is not believed.
    believed = torch.tensor(error).flip(0).cummax(dim=0).values.flip(0)
    return torch.tensor(order), believed, roughness


def _prefix(value: Tensor) -> Tensor:
    """(N + 1, ...) sums of the first 0, 1 .. N entries."""
    return torch.cat([torch.zeros_like(value[:1]), value.cumsum(dim=0)])
