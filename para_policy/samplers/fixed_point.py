"""The one engine behind every parallel sampler: fixed-point sweeps over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.deadline import Deadline
from para_policy.denoiser import Denoiser, Network
from para_policy.noise import Noise
from para_policy.process import Process
from para_policy.samplers.acceptance import Acceptance
from para_policy.samplers.anderson import TriangularAnderson
from para_policy.samplers.base import Callback, RoundInfo, SampleResult, Status, check_noise
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.guess import Guess
from para_policy.samplers.lookahead import evaluated, interpolate
from para_policy.samplers.pace import Pace
from para_policy.samplers.splitting import Splitting
from para_policy.samplers.switching import BASE, Switching


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
        acceleration: of the rows that are not final yet; None for plain sweeps.
        window: rows in flight, at least 1; None for all N.
        lookahead: beyond the window every so-many-th row is evaluated too, up to the end, and the
            defects between are interpolated; None for nothing beyond the window. Multistep
            schedulers (H != 0) need both neighbours of a row: there the window is all N instead.
        max_rounds: give up after so many rounds, at least 1; None for no limit.
        switching: another network for the first rounds (PCM), which reach all rows and freeze none.
    """

    splitting: Splitting
    acceptance: Acceptance
    guess: Guess
    acceleration: TriangularAnderson | None = None
    window: int | None = None
    lookahead: int | None = None
    max_rounds: int | None = None
    switching: Switching | None = None

    def __post_init__(self) -> None:
        for name in ("window", "lookahead", "max_rounds"):
            check_optional_count(name, getattr(self, name))

    def __call__(
        self,
        denoiser: Denoiser,
        process: Process,
        noise: Noise,
        *,
        guess: Guess | None = None,
        deadline: Deadline | None = None,
        callback: Callback | None = None,
    ) -> SampleResult:
        """Return X_N; see `Sampler` and `SampleResult`."""
        check_noise(process, noise)
        solve = _Solve(self, process, noise, guess or self.guess)
        pace = Pace(deadline)
        while len(solve.live):
            rows = solve.next_rows()
            if self.max_rounds and solve.rounds_done + len(rows.networks) > self.max_rounds:
                return solve.result(Status.ROUND_BUDGET)
            if not pace.fits(rows.count, len(rows.networks)):
                return solve.result(Status.DEADLINE)
            pace.start()
            info = solve.sweep(denoiser, rows)
            pace.stop(rows.count, len(rows.networks))
            if callback is not None:
                callback(info)
        return solve.result(Status.CONVERGED)


@dataclass(frozen=True)
class _Rows:
    """The rows of one round: steps (n, span), and which are in the window, and evaluated.

    `offset` (span,) is the place of each row in the window, `count` the rows of each network call.
    `networks` are evaluated on them, each with its share; `drafts` if one is not the base network.
    """

    offset: Tensor
    steps: Tensor
    valid: Tensor
    seen: Tensor
    count: int
    networks: tuple[tuple[Network | None, float], ...]
    drafts: bool


class _Solve:
    """State of one solve."""

    def __init__(self, parts: FixedPoint, process: Process, noise: Noise, guess: Guess) -> None:
        device, dtype = noise.initial.device, noise.initial.dtype
        self.parts, self.noise, self.guess = parts, noise, guess
        self.process = process.to(device, dtype)
        self.N = process.num_steps
        self.multistep = bool((process.H != 0).any())
        self.lookahead = None if self.multistep else parts.lookahead
        whole = parts.window is None or (self.multistep and parts.lookahead is not None)
        self.window = self.N if whole else min(parts.window or self.N, self.N)
        self.places = torch.arange(self.N, device=device)
        self.span = self.places[: self.N if self.lookahead else self.window]
        self.propagate = parts.splitting.bind(self.process, noise.initial.shape[1:])
        self.memory = parts.acceleration.memory() if parts.acceleration else None
        self.X, first = guess.start(self.process, noise)
        self.x0 = torch.zeros_like(self.X[:, 1:])  # unclipped predictions at X_0 .. X_{N-1}
        self.frozen = torch.full((noise.batch,), first, dtype=torch.int64, device=device)
        self.live = torch.arange(noise.batch, device=device)
        self.finite = torch.ones(noise.batch, dtype=torch.bool, device=device)
        self.rounds = torch.zeros_like(self.frozen)
        self.evals = torch.zeros_like(self.frozen)
        self.residual = torch.zeros(noise.batch, dtype=dtype, device=device)
        self.correction = torch.zeros_like(self.residual)
        self.residuals: list[Tensor] = []
        self.rounds_done = 0
        self.finite_X = self.X.clone()  # the last iterate without NaN

    def next_rows(self) -> _Rows:
        """The rows of the next round, and the networks that see them."""
        switching, k = self.parts.switching, len(self.residuals)
        networks = switching.networks(k) if switching else BASE
        drafts = networks is not BASE
        offset = self.places if drafts else self.span
        steps = self.frozen[self.live, None] + offset
        valid = steps < self.N
        steps = steps.clamp(max=self.N - 1)
        if drafts and switching:
            stride = 1 if self.multistep else switching.stride
            seen = evaluated(steps, valid, 0, stride, self.N)
        elif self.lookahead is None:
            seen = valid
        else:
            seen = evaluated(steps, valid, self.window, self.lookahead, self.N)
        return _Rows(offset, steps, valid, seen, int(seen.sum()), networks, drafts)

    def sweep(self, denoiser: Denoiser, rows: _Rows) -> RoundInfo:
        """One round: a batched network call, the linear recurrence, acceptance, new rows."""
        live = self.live[:, None].expand_as(rows.steps)
        target, found = self._evaluate(denoiser, live, rows)
        defect = self.X.new_zeros(rows.steps.shape + self.X.shape[2:])
        defect[rows.seen] = found
        size = _largest(defect)
        # A guess may overflow or become NaN further down; it must not reach other rows.
        sound = size.isfinite()
        defect[~sound] = 0.0
        if rows.seen is not rows.valid and rows.count < int(rows.valid.sum()):
            defect = interpolate(defect, rows.seen, rows.steps, self.process.clean_weight)
            defect[~rows.valid | ~_largest(defect).isfinite()] = 0.0
        carry = self.propagate(defect, rows.steps)  # Phi_s E_s
        change = carry + defect

        known = rows.seen & sound
        judged = change.masked_fill(_like(rows.valid & ~known, change), torch.inf)
        passed = self.parts.acceptance.passed(judged, defect, self.process.sigma, rows.steps)
        leading = (passed & known & (not rows.drafts)).long().cumprod(dim=1).sum(dim=1)

        if self.memory is not None and not rows.drafts:
            mixed = self.memory.mix(self.live, rows.steps, rows.valid, self.X, change)
            # The rows that become final take the plain update: that is why N rounds suffice.
            mixed[rows.offset <= leading[:, None]] = 0.0
            carry = carry - mixed
        # target + carry rather than X + E: a row whose parents did not change gets the very floats
        # of the step formula.
        base = self.X[live, rows.steps + 1] + defect
        # A draft of NaN is passed over; NaN of the base network must show.
        written = rows.seen & sound if rows.drafts else rows.seen
        base[written] = target[written[rows.seen]]
        self.X[live[rows.valid], rows.steps[rows.valid] + 1] = (base + carry)[rows.valid]
        return self._advance(rows, leading, size, _largest(change))

    def _evaluate(self, denoiser: Denoiser, live: Tensor, rows: _Rows) -> tuple[Tensor, Tensor]:
        """What the step formula writes for the rows that are seen, and minus what is there."""
        process, i, s = self.process, live[rows.seen], rows.steps[rows.seen]
        x = self.X[i, s]
        clean = [
            (denoiser.predict_clean(process, x, s, i, network), share)
            for network, share in rows.networks
        ]
        made = _weighted(clean)
        # A draft of NaN must not live on as the prediction before a row.
        self.x0[i, s] = torch.where(made.isfinite(), made, 0.0) if rows.drafts else made
        previous = self.x0[i, (s - 1).clamp(min=0)]
        mean = _weighted([(process.mean(x, x0, previous, s), share) for x0, share in clean])
        target = mean + process.noise(self.noise.steps[i, s], s)
        return target, target - self.X[i, s + 1]

    def _advance(self, rows: _Rows, leading: Tensor, size: Tensor, change: Tensor) -> RoundInfo:
        """Freeze the leading rows that passed and the row after them, whose parents are final."""
        live, height = self.live, rows.valid.sum(dim=1)
        first = self.frozen[live]
        if not rows.drafts:
            last = rows.steps.shape[1] - 1
            following = rows.seen.gather(1, leading.clamp(max=last)[:, None])[:, 0]
            self.frozen[live] = first + (leading + following).minimum(height)
        if self.parts.switching is None:  # otherwise a draft is there already
            self.X[live] = self.guess.enter(self.X[live], first + height)

        self.rounds_done += len(rows.networks)
        self.rounds[live] += len(rows.networks)
        self.evals[live] += rows.seen.sum(dim=1) * len(rows.networks)
        # The first row follows from a final state: its new value has no defect at all.
        let_pass = (rows.offset > 0) & (rows.offset < leading[:, None])
        for score, value in ((self.residual, size), (self.correction, change)):
            score[live] = score[live].maximum(torch.where(let_pass, value, 0).amax(dim=1))
        # Only final states belong to the solution; a guess further down may overflow on its own.
        states = (first[:, None] + 1 + rows.offset).clamp(max=self.N)
        broken = ~self.X[live[:, None], states].flatten(2).isfinite().all(dim=2)
        self.finite[live] = ~(broken & (states <= self.frozen[live, None])).any(dim=1)

        whole = self.X[live].flatten(1).isfinite().all(dim=1)
        self.finite_X[live[whole]] = self.X[live[whole]]
        residual = torch.full_like(self.residual, torch.nan)
        residual[live] = size.amax(dim=1)
        self.residuals.append(residual)
        self.live = live[(self.frozen[live] < self.N) & self.finite[live]]
        return RoundInfo(self.rounds_done, self.X, self.frozen.clone(), residual)

    def result(self, unfinished: Status) -> SampleResult:
        """`unfinished` is the status of samples that are still in flight."""
        done = self.frozen >= self.N
        states = torch.arange(self.N + 1, device=self.X.device)
        X = torch.where(_like(states <= self.frozen[:, None], self.X), self.X, self.finite_X)
        residual = torch.where(done, self.residual, self.residuals[-1])
        status = [
            Status.NON_FINITE if not finite else Status.CONVERGED if complete else unfinished
            for finite, complete in zip(self.finite.tolist(), done.tolist(), strict=True)
        ]
        return SampleResult(
            sample=X[:, -1],
            trajectory=X,
            rounds=self.rounds.cpu(),
            evals=self.evals.cpu(),
            residual=residual.cpu(),
            correction=self.correction.cpu(),
            residuals=torch.stack(self.residuals).cpu(),
            status=tuple(status),
        )


def _weighted(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Sum of values times their shares; exactly the value where there is one with share 1."""
    first, share = parts[0]
    return sum((value * weight for value, weight in parts[1:]), start=first * share)


def _largest(value: Tensor) -> Tensor:
    """(n, W) largest coordinate of (n, W, *shape)."""
    return value.flatten(2).abs().amax(dim=2)


def _like(mask: Tensor, value: Tensor) -> Tensor:
    """A mask (n, W), to be broadcast against (n, W, *shape)."""
    return mask.reshape(mask.shape + (1,) * (value.ndim - 2))
