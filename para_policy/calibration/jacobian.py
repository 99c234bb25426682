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
) -> Tensor | tuple[Tensor, Tensor]:
    """The linear part of `chord`: `mean_jacobian`, in factors if the actions have many coordinates."""
    dense = mean_jacobian(denoiser, process, noise, trajectory, on_progress)
    if dense.shape[1] <= _DENSE:
        return dense
    factors = LowRankChord.compress(dense, process, _RANK)
    return factors.left, factors.right


def mean_jacobian(
    denoiser: Denoiser,
    process: Process,
    noise: Noise,
    trajectory: Tensor,
    on_progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Mean over samples of dS_s/dx along their trajectories, by finite differences.

    One batched network call for every coordinate: 1 + d calls of batch * N rows.

    Args:
        trajectory: (batch, N + 1, *shape) sequential solutions with `noise`.
        on_progress: called with the number of finished calls.

    Returns:
        (N, d, d), row i, column j: derivative of coordinate i with respect to coordinate j.
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
    for j in range(d):
        moved = X.flatten(1).clone()
        moved[:, j] += _DIFFERENCE
        moved = moved.reshape(X.shape)
        x0 = denoiser.predict_clean(process, moved, s, sample)
        slope = (process.mean(moved, x0, before, s) - base) / _DIFFERENCE
        columns.append(slope.reshape(noise.batch, N, d).mean(dim=0))
        if on_progress is not None:
            on_progress(1)
    return torch.stack(columns, dim=2)
