"""Autospeculative decoding: steps are guessed ahead, then kept or changed at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from para_policy.errors import InputError
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.reading import on_host
from para_policy.samplers.result import RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Launch, Sampler

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process
    from para_policy.samplers.guess import Guess


@dataclass(frozen=True)
class Asd(Sampler):
    """Draw from exactly the law of `sequential` in fewer rounds (Hu et al. 2025, arXiv 2505.03983).

    The law is that of `sequential`, the sample is not: with the same noise it is another draw. So
    compare distributions or task scores, never samples. Only for stochastic processes.

    A round starts at the cleanest final state X_s with a clean sample z from earlier rounds.

    1. Propose states without the network: Y_s = X_s, Y_{k+1} = M_k(Y_k, z) + c_k xi_k, where M is
       the step formula and z stands for the network's prediction.
    2. Evaluate the true means m_k = M_k(Y_k, x0(Y_k)) of the whole window in one batched call.
    3. With d = (M_k(Y_k, z) - m_k) / c_k keep Y_{k+1} if log u_k < -<xi_k, d> - |d|^2 / 2. At the
       first k that fails reflect the noise, X_{k+1} = m_k + c_k (xi_k - 2 <xi_k, e> e) with
       e = d / |d|, and end the round. On the last row of a window nothing is built on the proposal,
       so there X_{k+1} = m_k + c_k xi_k without a test; the final step, whose noise is 0, is
       always such a row.
    4. The prediction at the last state that a step was made from, z = x0(X_k), proposes the next
       round. The first round has none and does a single step.

    The paper spends a second call in every round on z = x0(X_s). Here z is one state older and
    costs nothing: fewer rounds for about as many rows. The law does not depend on it:

    Let F_k be all that X_0 and (xi_i, u_i), i < k, determine. Each step k is decided once. That X_k
    is reached, in which round, by which z, whether it is tested, Y_k = X_k and so m_k and d are all
    in F_k: z is a prediction at X_{k'} with k' < k, and what a round evaluates at states that it
    then drops is never used again (it knows xi_k for k yet to be decided, so a z taken from it
    would be wrong). Given F_k, xi_k is still standard normal and u_k uniform, and the test with the
    reflection draws X_{k+1} ~ N(m_k, c_k^2) whatever d in F_k is, as does the untested step. These
    are the transitions of `sequential`.

    Every round makes at least one step, so N rounds suffice. Each sample has a position of its own
    and its result depends on its own noise only. With window 1 it is `sequential` to the bit.

    Attributes:
        window: rows in flight, at least 1; None for all N.
    """

    window: int | None = 20
    name: str = field(default="asd", kw_only=True, compare=False)

    same_sample: ClassVar[bool] = False
    uses_uniforms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optional_count("window", self.window)

    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> AsdSolve:
        """See `Sampler`.

        `guess` is not used: here it would change the sample. The sample is exact in law, so
        `residual` and `correction` of the result are 0.

        Raises:
            InputError: if noise has no uniforms, or for a process without noise in each step but the
                last.
        """
        if noise.uniforms is None:
            raise InputError(
                "noise has no uniforms, which asd accepts and rejects with; "
                "draw it with Noise.from_seeds"
            )
        if bool((process.c[:-1] <= 0).any() or (process.H != 0).any()):
            raise InputError(
                "asd needs noise in every step but the last, and this process is deterministic "
                "(c = 0; DDIM with eta = 0, DPM-Solver++ or flow matching); use DDPM, DDIM with "
                "eta > 0, flow matching with stochastic_sampling, or a "
                "sampler for deterministic processes such as 'x0' or 'paradigms'"
            )
        return AsdSolve(self.window, process, noise, noise.uniforms)


class AsdSolve:
    """State of one solve."""

    limit: int | None = None

    def __init__(
        self, window: int | None, process: Process, noise: Noise, uniforms: Tensor
    ) -> None:
        device, dtype = noise.initial.device, noise.initial.dtype
        self.process, self.noise = process.to(device, dtype), noise
        self.log_u = uniforms.to(dtype).log()
        self.N = process.num_steps
        self.window = torch.arange(min(window or self.N, self.N), device=device)
        self.X = noise.initial[:, None].repeat_interleave(self.N + 1, dim=1)
        self.z = torch.zeros_like(noise.initial)  # unclipped
        self.position = torch.zeros(noise.batch, dtype=torch.int64, device=device)
        self.live = torch.arange(noise.batch, device=device)
        self.finite = torch.ones(noise.batch, dtype=torch.bool, device=device)
        self.rounds = torch.zeros_like(self.position)
        self.evals = torch.zeros_like(self.position)
        self.residuals: list[Tensor] = []

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """See `Solve`."""
        while len(self.live):
            yield Launch(len(self.live) * len(self.window), 1, partial(self.round, denoiser))

    def round(self, denoiser: Denoiser) -> None:
        """Propose, evaluate in one batched call, keep the leading proposals that pass."""
        live, process = self.live, self.process
        window = self.window if self.residuals else self.window[:1]
        rows = self.position[live, None] + window  # (n, W)
        valid = rows < self.N
        rows = rows.clamp(max=self.N - 1)
        i, s = live[:, None].expand_as(rows)[valid], rows[valid]
        xi = self.noise.steps[live[:, None], rows]
        Y, drift = self._propose(rows, xi)

        x0 = torch.zeros_like(Y)
        x0[valid] = denoiser.predict_clean(process, Y[valid], s, i)
        # Everything but B_s Y, which is common to the proposed and the true mean.
        shift = (drift - process.mean(torch.zeros_like(Y), x0, x0, rows)).flatten(2)
        d = shift / process.c[rows, None]
        log_ratio = -(xi.flatten(2) * d).sum(dim=2) - d.square().sum(dim=2) / 2
        passed = self.log_u[live[:, None], rows] < log_ratio  # false for NaN

        # Step from row k of the window, its last or the first that failed.
        height = valid.sum(dim=1)
        k = passed.long().cumprod(dim=1).sum(dim=1).minimum(height - 1)
        n = torch.arange(len(live), device=live.device)
        tested = (k < height - 1).reshape(-1, *(1,) * (Y.ndim - 2))
        steps, xi = rows[n, k], xi[n, k]
        xi = torch.where(tested, _reflect(xi, d[n, k]), xi)
        state = process.mean(Y[n, k], x0[n, k], x0[n, k], steps) + process.noise(xi, steps)

        self.X[i, s] = Y[valid]
        self.X[live, steps + 1] = state
        self.z[live] = x0[n, k]
        self.position[live] = steps + 1
        self._advance(height, state)

    def _propose(self, rows: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        """Return states Y (n, W, *shape), proposed by z, and the part of their steps that z makes."""
        z = self.z[self.live, None].expand_as(xi)
        drift = self.process.mean(torch.zeros_like(z), z, z, rows)
        drive = drift + self.process.noise(xi, rows)
        B = self.process.B[rows].reshape(rows.shape + (1,) * (xi.ndim - 2))
        Y = [self.X[self.live, rows[:, 0]]]
        for j in range(rows.shape[1] - 1):
            Y.append(torch.addcmul(drive[:, j], B[:, j], Y[j]))
        return torch.stack(Y, dim=1), drift

    def _advance(self, height: Tensor, state: Tensor) -> None:
        live = self.live
        self.rounds[live] += 1
        self.evals[live] += height
        # A state that is not finite is never followed by one that is.
        self.finite[live] = state.flatten(1).isfinite().all(dim=1)
        residual = torch.full_like(self.X[:, 0].flatten(1)[:, 0], torch.nan)
        residual[live] = 0
        self.residuals.append(residual)
        self.live = live[(self.position[live] < self.N) & self.finite[live]]

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        position, evals = self.position.clone(), self.evals.clone()
        return RoundInfo(rounds, self.X, position, self.residuals[-1], evals)

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        nothing = torch.zeros(len(self.X), dtype=self.X.dtype)
        rounds, evals, finite, residuals = on_host(
            self.rounds, self.evals, self.finite, torch.stack(self.residuals)
        )
        return SampleResult(
            sample=self.X[:, -1],
            trajectory=self.X,
            rounds=rounds,
            evals=evals,
            residual=nothing,
            correction=nothing,
            residuals=residuals,
            status=tuple(
                Status.CONVERGED if whole else Status.NON_FINITE for whole in finite.tolist()
            ),
        )


def _reflect(xi: Tensor, d: Tensor) -> Tensor:
    """Mirror noise (n, *shape) at the plane normal to `d` (n, size); leave it if d overflowed."""
    e = (d / torch.linalg.vector_norm(d, dim=1, keepdim=True)).nan_to_num(0.0)
    flat = xi.flatten(1)
    return (flat - 2 * (flat * e).sum(dim=1, keepdim=True) * e).reshape(xi.shape)
