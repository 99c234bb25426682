"""The one engine behind every parallel sampler: fixed-point sweeps over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.denoiser import Denoiser
from para_policy.errors import InputError
from para_policy.noise import Noise
from para_policy.process import Process
from para_policy.samplers.acceptance import Acceptance
from para_policy.samplers.base import Callback, RoundInfo, SampleResult, Status, check_noise
from para_policy.samplers.guess import Guess
from para_policy.samplers.splitting import Splitting


@dataclass(frozen=True)
class FixedPoint:
    """Solve X_{s+1} = S_s(X_s) + c_s xi_s for all s at once, a few batched network calls in all.

    A sampler is a choice of parts. Each sample of a batch has a window of its own, so its result
    and its number of rounds do not depend on the others, and it leaves the batch when it is done.

    At least one row becomes final in each round: the first row of a window follows from a final
    state. So N rounds always suffice, whatever the parts. With a tolerance of 0 the first m states
    are exact after m rounds, because only values that the step formula wrote from final parents are
    kept, and the result is the sequential one to the bit wherever the network is independent of its
    batch.

    Attributes:
        splitting: the linear part that each sweep solves exactly.
        acceptance: when a row is final.
        guess: where the iteration starts.
        window: rows in flight, at least 1; None for all N.
        max_rounds: give up after so many rounds, at least 1; None for no limit.
    """

    splitting: Splitting
    acceptance: Acceptance
    guess: Guess
    window: int | None = None
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        for name in ("window", "max_rounds"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise InputError(f"{name} is {value!r}; expected an integer of at least 1, or None")

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Return X_N; see `SampleResult`. Raises InputError if noise does not fit the process."""
        check_noise(process, noise)
        solve = _Solve(self, process, noise)
        limit = self.max_rounds or process.num_steps
        while solve.rounds_done < limit and len(solve.live):
            info = solve.sweep(denoiser)
            if callback is not None:
                callback(info)
        return solve.result()


class _Solve:
    """State of one solve."""

    def __init__(self, parts: FixedPoint, process: Process, noise: Noise) -> None:
        device, dtype = noise.initial.device, noise.initial.dtype
        self.parts, self.noise = parts, noise
        self.process = process.to(device, dtype)
        self.N = process.num_steps
        self.window = torch.arange(min(parts.window or self.N, self.N), device=device)
        self.X = parts.guess.start(self.process, noise)
        self.x0 = torch.zeros_like(self.X[:, 1:])  # unclipped predictions at X_0 .. X_{N-1}
        self.frozen = torch.zeros(noise.batch, dtype=torch.int64, device=device)
        self.live = torch.arange(noise.batch, device=device)
        self.finite = torch.ones(noise.batch, dtype=torch.bool, device=device)
        self.rounds = torch.zeros_like(self.frozen)
        self.evals = torch.zeros_like(self.frozen)
        self.residual = torch.zeros(noise.batch, dtype=dtype, device=device)
        self.residuals: list[Tensor] = []
        self.rounds_done = 0

    def sweep(self, denoiser: Denoiser) -> RoundInfo:
        """One round: a batched network call, the linear recurrence, acceptance, new rows."""
        live, process = self.live, self.process
        rows = self.frozen[live, None] + self.window  # (n, W)
        valid = rows < self.N
        rows = rows.clamp(max=self.N - 1)
        i, s = live[:, None].expand_as(rows)[valid], rows[valid]  # (M,) sample and step of each row

        x = self.X[i, s]
        self.x0[i, s] = process.predict_clean(x, denoiser(x, process.timesteps[s], i), s)
        x0, x0_previous = self.x0[i, s], self.x0[i, (s - 1).clamp(min=0)]
        target = process.mean(x, x0, x0_previous, s) + process.noise(self.noise.steps[i, s], s)

        defect = self.X.new_zeros(rows.shape + self.X.shape[2:])
        defect[valid] = target - self.X[i, s + 1]
        carry = self.parts.splitting.propagate(defect, rows)  # Phi_s E_s
        # target + carry rather than X + E: a row whose parents did not change gets the very floats
        # of the step formula.
        self.X[i, s + 1] = target + carry[valid]

        passed = (
            self.parts.acceptance.passed(carry + defect, defect, process.sigma[rows + 1]) & valid
        )
        return self._advance(passed, valid, defect)

    def _advance(self, passed: Tensor, valid: Tensor, defect: Tensor) -> RoundInfo:
        """Freeze the leading rows that passed and the row after them, whose parents are final."""
        live, height = self.live, valid.sum(dim=1)
        leading = passed.long().cumprod(dim=1).sum(dim=1)
        size = defect.flatten(2).abs().amax(dim=2)  # (n, W)
        first = self.frozen[live].clone()
        end = first + height
        self.frozen[live] += (leading + 1).minimum(height)
        self.X[live] = self.parts.guess.enter(self.X[live], end)

        self.rounds_done += 1
        self.rounds[live] += 1
        self.evals[live] += height
        # The first row follows from a final state: its new value has no defect at all.
        let_pass = torch.where((self.window > 0) & (self.window < leading[:, None]), size, 0)
        self.residual[live] = self.residual[live].maximum(let_pass.amax(dim=1))
        # Only final states belong to the solution; a guess further down may overflow on its own.
        states = (first[:, None] + 1 + self.window).clamp(max=self.N)
        broken = ~self.X[live[:, None], states].flatten(2).isfinite().all(dim=2)
        self.finite[live] = ~(broken & (states <= self.frozen[live, None])).any(dim=1)
        residual = torch.full_like(self.residual, torch.nan)
        residual[live] = size.amax(dim=1)
        self.residuals.append(residual)
        self.live = live[(self.frozen[live] < self.N) & self.finite[live]]
        return RoundInfo(self.rounds_done, self.X, self.frozen.clone(), residual)

    def result(self) -> SampleResult:
        done = (self.frozen >= self.N).tolist()
        status = [
            Status.NON_FINITE
            if not finite
            else Status.CONVERGED
            if complete
            else Status.ROUND_BUDGET
            for finite, complete in zip(self.finite.tolist(), done, strict=True)
        ]
        return SampleResult(
            sample=self.X[:, -1],
            trajectory=self.X,
            rounds=self.rounds.cpu(),
            evals=self.evals.cpu(),
            residual=self.residual.cpu(),
            residuals=torch.stack(self.residuals).cpu(),
            status=tuple(status),
        )
