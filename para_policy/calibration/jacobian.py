"""The mean Jacobian of each step along sequential trajectories."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers import LowRankChord

_DENSE = 128
_RANK = 32
"""Above `_DENSE` action coordinates the Jacobian is kept in factors. Rank 8 of 32 loses nothing on
PushT, so 32 is ample, and 16 x 14 actions with 100 steps take 6 MB instead of 20."""

_DIFFERENCE = 1e-2


def chord_matrices(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Tensor | tuple[Tensor, Tensor], Tensor]:
    """The linear part of `chord`, the mean of `jacobians`, in factors if the actions have many
    coordinates; and their spread."""
    dense, spread = jacobians(denoiser, process, noise, trajectory, on_progress)
    if dense.shape[1] <= _DENSE:
        return dense, spread
    factors = LowRankChord.compress(dense, process, _RANK)
    return (factors.left, factors.right), spread


def mean_jacobian(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The mean of `jacobians`."""
    return jacobians(denoiser, process, noise, trajectory, on_progress)[0]


def jacobians(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and spread over samples of dS_s/dx along their trajectories, by finite differences.

    One batched network call for every coordinate: 1 + d calls of batch * N rows.

    Args:
        trajectory: (batch, N + 1, *shape) sequential solutions with `noise`.
        on_progress: called with the number of finished calls.

    Returns:
        the mean (N, d, d), row i, column j: derivative of coordinate i with respect to coordinate j;
        and (N,) the root mean square over samples of the Frobenius norm of their deviations from it.
    """
    N, d = process.num_steps, noise.initial[0].numel()
    process = process.to(trajectory.device, trajectory.dtype)
    shape = trajectory.shape[2:]
    X = trajectory[:, :N].flatten(0, 1)
    sample = torch.arange(noise.batch, device=X.device).repeat_interleave(N)
    s = torch.arange(N, device=X.device).repeat(noise.batch)
    clean = denoiser.predict_clean(process, X, s, sample)
    before = clean.reshape(noise.batch, N, *shape).roll(1, dims=1).flatten(0, 1)
    base = process.mean(X, clean, before, s)
    columns = []
    variance = torch.zeros(N, dtype=base.dtype, device=base.device)
    for j in range(d):
        moved = X.flatten(1).clone()
        moved[:, j] += _DIFFERENCE
        moved = moved.reshape(X.shape)
        x0 = denoiser.predict_clean(process, moved, s, sample)
        slope = (process.mean(moved, x0, before, s) - base) / _DIFFERENCE
        slope = slope.reshape(noise.batch, N, d)
        columns.append(slope.mean(dim=0))
        variance += (slope - columns[-1]).square().mean(dim=0).sum(dim=1)
        if on_progress is not None:
            on_progress(1)
    return torch.stack(columns, dim=2), variance.sqrt()
