"""The fixed-point sampler behind every parallel one: sweeps over a sliding window.

All tensors of a solve keep their shapes and addresses from round to round, and a sweep reads nothing
back to the host: with a size that is given it can be captured once and replayed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from para_policy.samplers.acceptance import Acceptance, is_finite, largest
from para_policy.samplers.anderson import TriangularAnderson
from para_policy.samplers.checks import check_optional_count
from para_policy.samplers.guess import Guess
from para_policy.samplers.reading import on_host
from para_policy.samplers.result import RoundInfo, SampleResult, Status
from para_policy.samplers.sampler import Launch, Sampler
from para_policy.samplers.splitting import Splitting, many
from para_policy.samplers.window import Pattern, Rows, interpolate

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process


@dataclass(frozen=True)
class FixedPoint(Sampler):
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
            residuals between are interpolated; None for nothing beyond the window. Multistep
            schedulers (H != 0) need both neighbours of a row: there the window is all N instead.
        max_rounds: give up after so many network calls, at least 1; None for no limit.
    """

    splitting: Splitting
    acceptance: Acceptance
    guess: Guess
    acceleration: TriangularAnderson | None = None
    window: int | None = None
    lookahead: int | None = None
    max_rounds: int | None = None

    stops_early: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("window", "lookahead", "max_rounds"):
            check_optional_count(name, getattr(self, name))

    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> FixedPointSolve:
        """See `Sampler`."""
        solve = FixedPointSolve(self, process, noise)
        solve.start(guess, denoiser.condition)
        return solve

    def pattern(self, process: Process, device: torch.device) -> Pattern:
        """Of the window on this process."""
        N = process.num_steps
        window, lookahead = min(self.window or N, N), self.lookahead
        if lookahead and process.multistep:
            window, lookahead = N, None
        return Pattern(N if lookahead else window, window, lookahead, device)

    def round_sizes(self, process: Process) -> tuple[int, ...]:
        """See `Sampler`; rounds of the guess do not count."""
        return (self.pattern(process, torch.device("cpu")).size,)

    @property
    def tolerance(self) -> float | None:
        """See `Sampler`."""
        return self.acceptance.largest_residual

    def told_apart(self, guess: Guess | None) -> type[Guess] | None:
        """See `Sampler`: a guess that looks at states which enter the window is part of the rounds."""
        own = self.guess if guess is None else self.guess.restarted(guess)
        return type(own) if _enters(own) else None

    def limited(self, max_rounds: int) -> FixedPoint:
        """See `Sampler`."""
        return replace(self, max_rounds=max_rounds)

    def starting_at(self, guess: Guess) -> FixedPoint:
        """See `Sampler`."""
        return replace(self, guess=self.guess.instead_of_prior(guess))


class Change(NamedTuple):
    """What a sweep finds for each of its rows, (n, span, *shape).

    Attributes:
        arrived: states X_{s+1} before it.
        residual: r_s = S_s(X_s) + c_s xi_s - X_{s+1}; 0 where it is not finite.
        size: (n, span) largest coordinate of the residual as the network gave it.
        carry: Phi_s E_s; the correction E_{s+1} of the state is the carry and the residual.
    """

    arrived: Tensor
    residual: Tensor
    size: Tensor
    carry: Tensor


class Verdict(NamedTuple):
    """What is thought of the rows of a sweep.

    Attributes:
        leading: (n,) rows at the front of the window that pass the test.
        final: (n,) rows that become final.
        error: (n, span) estimated error of their states, largest coordinate.
    """

    leading: Tensor
    final: Tensor
    error: Tensor


class FixedPointSolve:
    """The parts of a sampler at work on one batch of noise.

    Attributes:
        X: (batch, N + 1, *shape) present states.
        x0: the same, unclipped predictions at X_0 .. X_{N-1}.
        first: step that is solved first; states before it are given.
        accepted: (batch,) first step that is not final.
        finite: (batch,) no final state is NaN or infinity.
        residual: (batch,) largest residual of the last sweep, NaN where the sample was done.
        moved: (batch,) root mean square by which the last round of the guess has moved the states; 0
            before the first one, and where the guess does not ask for it.
        limit: network calls that it may take; None for no limit.
        opening: rounds at the beginning that are unlike the others, and each other.
        sizes: see `RecordableSolve`; with one size all rounds after the opening are alike.
        begins_with: see `RecordableSolve`.
    """

    sizes: int = 1
    begins_with: int = 1

    def __init__(self, parts: FixedPoint, process: Process, noise: Noise) -> None:
        device, dtype = noise.initial.device, noise.initial.dtype
        batch, shape, N = noise.batch, noise.initial.shape[1:], process.num_steps
        self.parts, self.noise, self.N, self.limit = parts, noise, N, parts.max_rounds
        self.process = process.to(device, dtype)
        self.propagate = parts.splitting.bind(self.process, shape)
        self.multistep = self.process.multistep
        self.pattern = self._pattern()
        # The place after the last one takes what must not be written.
        self._X = torch.zeros(batch, N + 2, *shape, device=device, dtype=dtype)
        self.X = self._X[:, :-1]
        self.x0 = torch.zeros_like(self.X)
        self._finite_X = torch.zeros_like(self.X)  # the last iterate without NaN
        self.memory = parts.acceleration.memory(self.X) if parts.acceleration else None
        self.accepted = torch.zeros(batch, dtype=torch.int64, device=device)
        self.rounds, self.evals = torch.zeros_like(self.accepted), torch.zeros_like(self.accepted)
        self.finite = torch.zeros_like(self.accepted, dtype=torch.bool)
        self.residual = torch.zeros(batch, dtype=dtype, device=device)
        self.moved = torch.zeros_like(self.residual)
        self.passed_residual = torch.zeros_like(self.residual)
        self.passed_correction = torch.zeros_like(self.residual)
        self.opening = parts.guess.rounds
        # One row for each sweep, and one for sweeps in vain.
        self._residuals = torch.zeros(self.most_rounds() + 1, batch, dtype=dtype, device=device)
        self._sweeps = torch.zeros(1, dtype=torch.int64, device=device)

    def most_rounds(self) -> int:
        """See `RecordableSolve`."""
        return self.N + self.opening

    def _pattern(self) -> Pattern:
        return self.parts.pattern(self.process, self.noise.initial.device)

    def start(self, guess: Guess | None, condition: Tensor | None) -> None:
        """Begin anew, with what the tensors of `noise` hold now.

        Args:
            guess: of the caller, or None.
            condition: (batch, ...) what the network is conditioned on.
        """
        own = self.parts.guess
        self.guess = (own if guess is None else own.restarted(guess)).given(condition)
        self._enters = _enters(self.guess)
        X, self.first = self.guess.start(self.process, self.noise)
        self.X.copy_(X)
        self._finite_X.copy_(X)
        for kept in (
            self.rounds,
            self.evals,
            self.moved,
            self.passed_residual,
            self.passed_correction,
            self._sweeps,
        ):
            kept.zero_()
        self.x0.zero_()
        self.accepted.fill_(self.first)
        self.finite.fill_(True)
        if self.memory is not None:
            self.memory.clear()

    def alive(self) -> Tensor:
        """(batch,) samples in flight."""
        return (self.accepted < self.N) & self.finite

    def wanted(self) -> Tensor:
        """See `RecordableSolve`."""
        return self.alive().any().long()

    def launches(self, denoiser: Denoiser) -> Iterator[Launch]:
        """Round after round, of exactly the rows that are needed."""
        for k in itertools.count():
            launch = self.launch(k, denoiser, None)
            if launch is None:
                return
            yield launch

    def launch(self, k: int, denoiser: Denoiser, size: int | None) -> Launch | None:
        """Round `k`, those of the guess first; None if no sample is in flight any more.

        Args:
            size: of the round, see `RecordableSolve`; None for exactly the rows that are needed, which
                are read back.
        """
        if k < self.opening:
            return self.guess.launch(k, self, denoiser, static=size is not None)
        rows = self.select(self.rows_of(self.pattern), size)
        if size is None:
            rows = rows.compact()
        if len(rows.live) == 0:
            return None
        return Launch(len(rows.at), 1, partial(self.sweep, denoiser, rows))

    def rows_of(self, pattern: Pattern) -> Rows:
        """All rows of a window where the samples are now."""
        return Rows.static(pattern, self.accepted, self.alive(), self.N)

    def select(self, rows: Rows, size: int | None) -> Rows:
        """Of the rows of all samples, those that a round works on; arguments as for `launch`."""
        return rows

    def sweep(self, denoiser: Denoiser, rows: Rows) -> None:
        """One round: a batched network call, the linear recurrence, acceptance, new rows."""
        i, s = self.places(rows)
        x = self.X[i, s]
        x0 = previous = denoiser.predict_clean(self.process, x, s, i)
        if self.multistep:
            self.x0[i, s] = x0
            previous = self.x0[i, (s - 1).clamp(min=0)]
        found = self.process.step(x, x0, previous, self.noise.steps[i, s], s)
        target = self.spread(rows, found)
        change = self.correct(rows, target)

        correction, carry = change.carry + change.residual, change.carry
        known = rows.seen & is_finite(change.size)
        verdict = self.judge(rows, change, correction, known)
        if self.memory is not None and rows.mixed is not None:
            mixed = self.memory.mix(rows, self.X, correction)
            # The rows that become final take the plain update: that is why N rounds suffice.
            carry = carry - cleared(mixed, rows.offset <= verdict.leading[:, None])
        # target + carry rather than X + E: a row whose parents did not change gets the very floats
        # of the step formula.
        states = where(rows.fresh, target, change.arrived + change.residual) + carry
        self.write(rows, states)
        self._accept(rows, verdict, change.size, states)
        self.count(rows, change.size)

    def judge(self, rows: Rows, change: Change, correction: Tensor, known: Tensor) -> Verdict:
        """Test the rows before they are written.

        The row after the leading ones becomes final with them, for its parents are final then.

        Args:
            correction: (n, span, *shape) of the states that the rows make.
            known: (n, span) rows with a finite residual.
        """
        judged = cleared(correction, rows.valid & ~known, torch.inf)
        sigma = self.process.sigma
        passed = self.parts.acceptance.passed(judged, change.residual, sigma, rows.steps)
        leading = (passed & known).long().cumprod(dim=1).sum(dim=1)
        last = rows.steps.shape[1] - 1
        following = rows.seen.gather(1, leading.clamp(max=last)[:, None])[:, 0]
        final = (leading + following).minimum(rows.height)
        return Verdict(leading, final, largest(correction))

    def places(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(M,) sample and step of what the network evaluates."""
        i = rows.live[rows.at.div(rows.steps.shape[1], rounding_mode="floor")]
        return i, rows.steps.flatten()[rows.at]

    def spread(self, rows: Rows, found: Tensor) -> Tensor:
        """Values (M, *shape) of the rows that are seen, in their places (n, span, *shape)."""
        target = found.new_zeros(rows.steps.numel(), *found.shape[1:])
        target[rows.at] = found
        return target.reshape(*rows.steps.shape, *found.shape[1:])

    def correct(self, rows: Rows, target: Tensor) -> Change:
        """Solve the linear recurrence for what the step formula writes (n, span, *shape)."""
        arrived = self.X[rows.live[:, None], rows.steps + 1]
        residual = cleared(target - arrived, ~rows.fresh)
        size = largest(residual)
        # A guess may overflow or become NaN further down; it must not reach other rows.
        residual = cleared(residual, ~is_finite(size))
        if rows.sparse:
            residual = interpolate(residual, rows.seen, rows.steps, self.process.clean_weight)
            residual = cleared(residual, ~(rows.valid & is_finite(largest(residual))))
        return Change(arrived, residual, size, self._carried(rows, residual))

    def _carried(self, rows: Rows, residual: Tensor) -> Tensor:
        """Phi_s E_s (n, span, *shape) for residuals of the same shape."""
        batch = len(self.accepted)
        if rows.whole or not many(batch, rows.steps.shape[1]):
            return self.propagate(residual, rows.steps)
        # Each sample keeps its place in a large batch, whichever others are still in flight.
        every = residual.new_zeros(batch, *residual.shape[1:])
        steps = rows.steps.new_zeros(batch, rows.steps.shape[1])
        every[rows.live], steps[rows.live] = residual, rows.steps
        return self.propagate(every, steps)[rows.live]

    def write(self, rows: Rows, states: Tensor) -> None:
        """Put states X_{s+1} (n, span, *shape) of the valid rows in their places."""
        place = (rows.steps + 1).masked_fill_(~rows.valid, self.N + 1)
        self._X[rows.live[:, None], place] = states

    def _accept(self, rows: Rows, verdict: Verdict, size: Tensor, states: Tensor) -> None:
        """Keep the rows that are final, of which `states` (n, span, *shape) have been written."""
        first = rows.of(self.accepted)
        if self._enters:
            rows.put(self.X, self.guess.enter(rows.of(self.X), first + rows.height))
        # The first row follows from a final state: its new value is exact, and has no residual at all.
        # But its change is what the next row, if that becomes final with it, was computed without.
        beyond = rows.offset >= verdict.leading[:, None]
        exact = rows.offset == 0
        alone = exact & (verdict.final <= 1)[:, None]
        for score, value, left_out in (
            (self.passed_residual, size, exact | beyond),
            (self.passed_correction, verdict.error, alone | beyond),
        ):
            worst = value.masked_fill(left_out, 0).amax(dim=1)
            rows.put(score, rows.of(score).maximum(worst))
        # Only final states belong to the solution; a guess further down may overflow on its own.
        broken = ~is_finite(largest(states)) & (rows.offset < verdict.final[:, None])
        rows.put(self.finite, rows.of(self.finite) & ~broken.any(dim=1))
        rows.put(self.accepted, first + verdict.final)

    def count(self, rows: Rows, size: Tensor, calls: int = 1) -> None:
        """Note what a round has cost, its largest residuals, and the last iterate without NaN."""
        alive, X = rows.height > 0, rows.of(self.X)
        rows.put(self.rounds, rows.of(self.rounds) + calls * alive)
        rows.put(self.evals, rows.of(self.evals) + calls * rows.asked.sum(dim=1))
        whole = is_finite(X.flatten(1).abs().amax(dim=1))
        rows.put(self._finite_X, where(whole, X, rows.of(self._finite_X)))
        self.residual.fill_(torch.nan)
        rows.put(self.residual, size.amax(dim=1).masked_fill(~alive, torch.nan))
        self._residuals.index_copy_(0, self._sweeps, self.residual[None])
        self._sweeps += alive.any()

    def info(self, rounds: int) -> RoundInfo:
        """See `Solve`."""
        return RoundInfo(
            rounds, self.X, self.accepted.clone(), self.residual.clone(), self.evals.clone()
        )

    def result(self, unfinished: Status) -> SampleResult:
        """See `Solve`."""
        done = self.accepted >= self.N
        states = torch.arange(self.N + 1, device=self.X.device)
        X = where(states <= self.accepted[:, None], self.X, self._finite_X)
        finite, complete, rounds, evals, residual, correction, residuals, sweeps = on_host(
            self.finite,
            done,
            self.rounds,
            self.evals,
            torch.where(done, self.passed_residual, self.residual),
            self.passed_correction,
            self._residuals,
            self._sweeps,
        )
        status = [
            Status.NON_FINITE if not whole else Status.CONVERGED if passed else unfinished
            for whole, passed in zip(finite.tolist(), complete.tolist(), strict=True)
        ]
        return SampleResult(
            sample=X[:, -1],
            trajectory=X,
            rounds=rounds,
            evals=evals,
            residual=residual,
            correction=correction,
            residuals=residuals[: int(sweeps)],
            status=tuple(status),
        )


def _enters(guess: Guess) -> bool:
    return type(guess).enter is not Guess.enter


def where(mask: Tensor, value: Tensor, otherwise: Tensor) -> Tensor:
    """Choose by a mask of the leading dimensions."""
    return torch.where(_over(mask, value), value, otherwise)


def cleared(value: Tensor, mask: Tensor, to: float = 0.0) -> Tensor:
    """`value` with a number where the mask of the leading dimensions is true."""
    return value.masked_fill(_over(mask, value), to)


def times(value: Tensor, factor: Tensor) -> Tensor:
    """`value` times a factor for its leading dimensions."""
    return value * _over(factor, value)


def _over(mask: Tensor, value: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
