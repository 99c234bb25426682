"""A differentiable sweep, as a round of `pcm` makes it, and what one row after the other leaves of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Network
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import Propagate, Splitting
from para_policy.samplers.window import evaluated, interpolate


@dataclass(frozen=True)
class Swept:
    """What a sweep has made.

    Attributes:
        X: (batch, N + 1, *shape) the next iterate.
        rows: (M,) steps at which it has asked the network.
        residual: (batch, M, *shape) that the network found there.
    """

    X: Tensor
    rows: Tensor
    residual: Tensor


def sweep(
    network: Network,
    process: Process,
    propagate: Propagate,
    noise: Noise,
    condition: Tensor,
    X: Tensor,
    stride: int,
) -> Swept:
    """Phi(X; network): one differentiable sweep over all rows, as a round of `pcm` does it.

    Args:
        propagate: of the splitting, bound to `process`.
        X: (batch, N + 1, *shape).
        stride: the network sees every so-many-th row; the residuals between are interpolated.
    """
    batch, N = len(X), process.num_steps
    rows = torch.arange(N, device=X.device).expand(batch, N)
    seen = evaluated(rows, torch.ones_like(rows, dtype=torch.bool), 0, stride, N)
    s = rows[0, seen[0]]
    steps = s.repeat(batch)
    x = X[:, s].flatten(0, 1)
    output = network(x, process.timesteps[steps], condition.repeat_interleave(len(s), dim=0))
    x0 = process.predict_clean(x, output.float(), steps)
    mean = process.mean(x, x0, x0, steps)
    target = mean + process.noise(noise.steps[:, s].flatten(0, 1), steps)
    found = target.reshape(batch, len(s), *X.shape[2:]) - X[:, s + 1]
    residual = torch.zeros_like(X[:, 1:]).index_copy(1, s, found)
    if stride > 1:
        residual = interpolate(residual, seen, rows, process.clean_weight)
    change = residual + propagate(residual, rows)
    return Swept(torch.cat([X[:, :1], X[:, 1:] + change], dim=1), s, found)


def ideal_residual(splitting: Splitting, process: Process, X: Tensor, solution: Tensor) -> Tensor:
    """(batch, N, *shape) residuals with which a sweep from `X` lands on `solution`: E_{s+1} - Phi_s E_s
    with the error E of the states.

    Args:
        X, solution: (batch, N + 1, *shape), the same in state 0.
    """
    E = solution - X
    carried = [splitting.times(process, s, E[:, s]) for s in range(process.num_steps)]
    return E[:, 1:] - torch.stack(carried, dim=1)
