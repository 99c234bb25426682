"""State of one parallel solve, and its sweep.

All tensors keep their shapes and addresses from round to round, and a sweep reads nothing back to
the host: with `Rows.static` it can be captured once and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.samplers.guess import Guess
from para_policy.samplers.lookahead import interpolate
from para_policy.samplers.rows import Networks, Pattern, Rows
from para_policy.samplers.sampler import RoundInfo, SampleResult, Status
from para_policy.samplers.switching import BASE

if TYPE_CHECKING:
    from para_policy.samplers.fixed_point import FixedPoint


Choose = Callable[[Pattern, Tensor, Tensor, int, Networks], Rows]


class Solve:
    """The parts of a sampler at work on one batch of noise.

    Attributes:
        X: (batch, N + 1, *shape) present states.
        frozen: (batch,) first step that is not final.
        finite: (batch,) no final state is NaN or infinity.
        residual: (batch,) largest defect of the last sweep, NaN where the sample was done.
    """

    def __init__(self, parts: FixedPoint, process: Process, noise: Noise, guess: Guess) -> None:
        device, dtype = noise.initial.device, noise.initial.dtype
        batch, shape, N = noise.batch, noise.initial.shape[1:], process.num_steps
        self.parts, self.noise, self.N = parts, noise, N
        self.process = process.to(device, dtype)
        self.propagate = parts.splitting.bind(self.process, shape)
        self.multistep = bool((self.process.H != 0).any())
        self.pattern = self._pattern()
        # The place after the last one takes what must not be written.
        self._X = torch.zeros(batch, N + 2, *shape, device=device, dtype=dtype)
        self.X = self._X[:, :-1]
        self._x0 = torch.zeros_like(self.X)  # unclipped predictions at X_0 .. X_{N-1}
        self._finite_X = torch.zeros_like(self.X)  # the last iterate without NaN
        self.memory = parts.acceleration.memory(self.X) if parts.acceleration else None
        self.frozen = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rounds, self.evals = torch.zeros_like(self.frozen), torch.zeros_like(self.frozen)
        self.finite = torch.zeros_like(self.frozen, dtype=torch.bool)
        self.residual = torch.zeros(batch, dtype=dtype, device=device)
        self.defect = torch.zeros_like(self.residual)
        self.correction = torch.zeros_like(self.residual)
        drafts = parts.switching.drafts if parts.switching else 0
        # One row for each sweep, and one for sweeps in vain.
        self._residuals = torch.zeros(N + drafts + 1, batch, dtype=dtype, device=device)
        self._sweeps = torch.zeros(1, dtype=torch.int64, device=device)
        self.start(guess)

    def _pattern(self) -> Pattern:
        window, lookahead = self.parts.window or self.N, self.parts.lookahead
        if lookahead and self.multistep:
            window, lookahead = self.N, None
        window = min(window, self.N)
        return Pattern(self.N if lookahead else window, window, lookahead)

    def start(self, guess: Guess) -> None:
        """Begin anew, with what the tensors of `noise` hold now."""
        self.guess = guess
        X, first = guess.start(self.process, self.noise)
        self.X.copy_(X)
        self._finite_X.copy_(X)
        for kept in (self.rounds, self.evals, self.defect, self.correction, self._sweeps, self._x0):
            kept.zero_()
        self.frozen.fill_(first)
        self.finite.fill_(True)
        if self.memory is not None:
            self.memory.clear()

    def alive(self) -> Tensor:
        """(batch,) samples in flight."""
        return (self.frozen < self.N) & self.finite

    def rows(self, k: int, choose: Choose) -> Rows:
        """The rows of round `k`, by `Rows.compact` or `Rows.static`."""
        switching, pattern = self.parts.switching, self.pattern
        networks = switching.networks(k) if switching else BASE
        if switching and networks is not BASE:
            pattern = Pattern(self.N, 0, 1 if self.multistep else switching.stride)
        return choose(pattern, self.frozen, self.alive(), self.N, networks)

    def sweep(self, denoiser: Denoiser, rows: Rows) -> None:
        """One round: a batched network call, the linear recurrence, acceptance, new rows."""
        live = rows.live[:, None]
        target = self._evaluate(denoiser, rows)
        arrived = self.X[live, rows.steps + 1]
        defect = _where(rows.seen, target - arrived, 0.0)
        size = _largest(defect)
        # A guess may overflow or become NaN further down; it must not reach other rows.
        sound = size.isfinite()
        defect = _where(sound, defect, 0.0)
        if rows.sparse:
            defect = interpolate(defect, rows.seen, rows.steps, self.process.clean_weight)
            defect = _where(rows.valid & _largest(defect).isfinite(), defect, 0.0)
        carry = self.propagate(defect, rows.steps)  # Phi_s E_s
        change = carry + defect

        known = rows.seen & sound
        judged = _where(rows.valid & ~known, torch.inf, change)
        passed = self.parts.acceptance.passed(judged, defect, self.process.sigma, rows.steps)
        leading = (passed & known & (not rows.drafts)).long().cumprod(dim=1).sum(dim=1)

        if self.memory is not None and not rows.drafts:
            mixed = self.memory.mix(rows.live, rows.steps, rows.valid, self.X, change)
            # The rows that become final take the plain update: that is why N rounds suffice.
            carry = carry - _where(rows.offset <= leading[:, None], 0.0, mixed)
        # target + carry rather than X + E: a row whose parents did not change gets the very floats
        # of the step formula. A draft of NaN is passed over; NaN of the base network must show.
        written = known if rows.drafts else rows.seen
        base = _where(written, target, arrived + defect)
        self._X[live, torch.where(rows.valid, rows.steps, self.N) + 1] = base + carry
        self._advance(rows, leading, size, _largest(change))

    def _evaluate(self, denoiser: Denoiser, rows: Rows) -> Tensor:
        """(n, span, *shape) what the step formula writes for the rows that are seen."""
        process = self.process
        i = rows.live[:, None].expand_as(rows.steps).flatten()[rows.at]
        s = rows.steps.flatten()[rows.at]
        x = self.X[i, s]
        clean = [
            (denoiser.predict_clean(process, x, s, i, network), share)
            for network, share in rows.networks
        ]
        made = _weighted(clean)
        # A draft of NaN must not live on as the prediction before a row.
        self._x0[i, s] = torch.where(made.isfinite(), made, 0.0) if rows.drafts else made
        previous = self._x0[i, (s - 1).clamp(min=0)]
        mean = _weighted([(process.mean(x, x0, previous, s), share) for x0, share in clean])
        found = mean + process.noise(self.noise.steps[i, s], s)
        target = found.new_zeros(rows.steps.numel(), *found.shape[1:])
        target[rows.at] = found
        return target.reshape(*rows.steps.shape, *found.shape[1:])

    def _advance(self, rows: Rows, leading: Tensor, size: Tensor, change: Tensor) -> None:
        """Freeze the leading rows that passed and the row after them, whose parents are final."""
        live, height = rows.live, rows.valid.sum(dim=1)
        first = self.frozen[live]
        if not rows.drafts:
            last = rows.steps.shape[1] - 1
            following = rows.seen.gather(1, leading.clamp(max=last)[:, None])[:, 0]
            self.frozen[live] = first + (leading + following).minimum(height)
        if self.parts.switching is None:  # otherwise a draft is there already
            self.X[live] = self.guess.enter(self.X[live], first + height)

        alive = height > 0
        calls = len(rows.networks)
        self.rounds[live] += calls * alive
        self.evals[live] += calls * rows.seen.sum(dim=1)
        # The first row follows from a final state: its new value has no defect at all.
        let_pass = (rows.offset > 0) & (rows.offset < leading[:, None])
        for score, value in ((self.defect, size), (self.correction, change)):
            score[live] = score[live].maximum(torch.where(let_pass, value, 0).amax(dim=1))
        # Only final states belong to the solution; a guess further down may overflow on its own.
        states = (first[:, None] + 1 + rows.offset).clamp(max=self.N)
        broken = ~self.X[live[:, None], states].flatten(2).isfinite().all(dim=2)
        self.finite[live] &= ~(broken & (states <= self.frozen[live, None])).any(dim=1)

        whole = self.X[live].flatten(1).isfinite().all(dim=1)
        self._finite_X[live] = _where(whole, self.X[live], self._finite_X[live])
        self.residual.fill_(torch.nan)
        self.residual[live] = torch.where(alive, size.amax(dim=1), torch.nan)
        self._residuals.index_copy_(0, self._sweeps, self.residual[None])
        self._sweeps += alive.any()

    def info(self, calls: int) -> RoundInfo:
        """What a callback sees after so many network calls."""
        evals = self.evals.clone()
        return RoundInfo(calls, self.X, self.frozen.clone(), self.residual.clone(), evals)

    def result(self, unfinished: Status) -> SampleResult:
        """`unfinished` is the status of samples that are still in flight."""
        done = self.frozen >= self.N
        states = torch.arange(self.N + 1, device=self.X.device)
        X = _where(states <= self.frozen[:, None], self.X, self._finite_X)
        defect = torch.where(done, self.defect, self.residual)
        status = [
            Status.NON_FINITE if not finite else Status.CONVERGED if complete else unfinished
            for finite, complete in zip(self.finite.tolist(), done.tolist(), strict=True)
        ]
        return SampleResult(
            sample=X[:, -1],
            trajectory=X,
            rounds=self.rounds.cpu(),
            evals=self.evals.cpu(),
            residual=defect.cpu(),
            correction=self.correction.clone().cpu(),
            residuals=self._residuals[: int(self._sweeps)].cpu(),
            status=tuple(status),
        )


def _weighted(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Sum of values times their shares; exactly the value where there is one with share 1."""
    first, share = parts[0]
    return sum((value * weight for value, weight in parts[1:]), start=first * share)


def _largest(value: Tensor) -> Tensor:
    """(n, W) largest coordinate of (n, W, *shape)."""
    return value.flatten(2).abs().amax(dim=2)


def _where(mask: Tensor, value: Tensor | float, otherwise: Tensor | float) -> Tensor:
    """Choose by a mask of the leading dimensions."""
    like = value if isinstance(value, Tensor) else otherwise
    assert isinstance(like, Tensor)
    return torch.where(mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim)), value, otherwise)
