"""Collocation: rounds at a few nodes, as many as the sample needs, before rounds over all steps.

With the mean Jacobian Phi_s a step is X_{s+1} = Phi_s X_s + w_s (r - G_s signal_s r + e_s) + c_s xi_s,
G_s = (Phi_s - B_s) / w_s, where r is a clean sample, w_s its weight and e_s the remainder. A sweep asks
the network for e_s at the nodes, interpolates it between them, and solves the linear recurrence over all
steps with the true noise. At a node its fixed point is the step formula; between nodes it is off by what
interpolation leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from para_policy.errors import InputError
from para_policy.samplers.acceptance import is_finite, largest
from para_policy.samplers.fixed_point import (
    Change,
    FixedPoint,
    FixedPointSolve,
    Verdict,
    times,
    where,
)
from para_policy.samplers.guess import Guess
from para_policy.samplers.nodes import Levels, Nodes
from para_policy.samplers.window import Pattern, Rows

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process

_NEAR = 3.0
"""Shares of the tolerance: a correction below it ends the first level early."""
_ROUNDS = (3, 4, 6, 8, 8)
"""Rounds on a level, at most."""
_DIVERGES = 9.0
_SLOW = (_DIVERGES, 0.45, 0.7, 0.7)
"""A correction that is left to so much of the one before: this sample is more sensitive than the mean
one, and interpolation may cost it more than calibration has found. With all steps as nodes only
divergence is a reason to leave."""
_BELIEVED = 0.2
"""Share of the tolerance that the error of the interpolation may have, as a check tells it."""
_TRUST = 0.5
"""Share of the tolerance that the estimated error may have."""
_CARE = 5.0
"""Estimates and residuals count so many times on the level of all steps and beyond: only samples at a
decision come there, where an error grows to more than the mean Jacobian says."""
_HOPED = 0.5
"""Of the correction that the contraction lets expect: one of so much would be the last. A check in vain
costs a few rows, one that is missing costs a round."""
_CONTRACTION = 0.2, 0.9
"""What is assumed of the contraction at least and at most."""


@dataclass(frozen=True, kw_only=True)
class Collocation(FixedPoint):
    """`FixedPoint` with rounds at nodes before it.

    A sample climbs from level to level of nodes, each at its own pace. It is done when its estimated
    error is small,

        (rho |E| + floor) / (1 - rho) <= tolerance / 2,

    with the last correction E of any state, the ratio rho of successive corrections, both measured on
    this very sample, and the calibrated interpolation error `floor` of its level, which grows like any
    other error with the sample's sensitivity. In the first round on a level there is no ratio yet: half
    of that on the level before, and 0.2 at least, stands for it.

    And it is done only on a level that was checked. Where a decision falls between two nodes, a sample
    may come to rest on the wrong side of it, with small corrections at the nodes; but between them the
    step formula is off by more than usual. So with what should be the last round the network is asked
    at a few steps more, for this alone. The largest of these defects, as a multiple q of the usual one,
    says how much of an error the interpolation has on this sample; it climbs unless

        q floor / (1 - rho) <= tolerance / 5.

    A sample that no level suffices for goes on as in `FixedPoint`, from where it is. So does every
    sample with a tolerance of 0, and with multistep schedulers, whose rows need both neighbours. What
    has climbed to the last level, or past it, is at a decision, and held to a fifth of the tolerance.

    Attributes:
        nodes: from calibration.
    """

    nodes: Nodes

    @cached_property
    def levels(self) -> Levels:
        """Sets of nodes for the tolerance."""
        return self.nodes.levels(self.tolerance or 0.0)

    def levels_for(self, process: Process) -> Levels:
        """Sets of nodes; none for multistep schedulers."""
        return self.nodes.levels(0.0) if process.multistep else self.levels

    def round_sizes(self, process: Process) -> tuple[int, ...]:
        """See `FixedPoint`; a round has what one level may ask."""
        levels = self.levels_for(process)
        return tuple(map(len, levels.steps)) or super().round_sizes(process)

    def begin(
        self, denoiser: Denoiser, process: Process, noise: Noise, guess: Guess | None
    ) -> CollocationSolve:
        """See `Sampler`."""
        if len(self.nodes.order) != process.num_steps:
            raise InputError(
                f"the nodes are for {len(self.nodes.order)} steps, and this process has "
                f"{process.num_steps}: calibrate for this process"
            )
        solve = CollocationSolve(self, process, noise)
        solve.start(guess, denoiser.condition)
        return solve


class CollocationSolve(FixedPointSolve):
    """A `FixedPointSolve` whose samples may be at nodes.

    Attributes:
        level: (batch,) of the nodes; those past the last one are solved as in `FixedPoint`.
        asked: (batch, N, *shape) states at which the network was asked last.
    """

    parts: Collocation

    def __init__(self, parts: Collocation, process: Process, noise: Noise) -> None:
        super().__init__(parts, process, noise)
        batch, like = noise.batch, noise.initial
        L = len(self.levels)
        # One entry more, for samples that are past all levels; it is not looked at.
        self._most = torch.tensor([*_ROUNDS[:L], 0]).to(like.device)
        self._slow = torch.tensor([*_SLOW[: L - 1], _DIVERGES, _DIVERGES]).to(like)
        self._checkable = self.levels.checked
        self._numbers = torch.arange(L, device=like.device)
        self.level = torch.zeros(batch, dtype=torch.int64, device=like.device)
        self._rounds_on_level = torch.zeros_like(self.level)
        self._last, self._rho = like.new_zeros(batch), like.new_zeros(batch)
        self.asked = torch.zeros_like(self.X[:, :-1])
        self._known = torch.zeros(batch, self.N, dtype=torch.bool, device=like.device)
        self._due = torch.zeros_like(self.level, dtype=torch.bool)
        self._care = like.new_ones(batch)
        self._defect = like.new_zeros(batch)
        self.sizes = max(L, 1)

    @cached_property
    def levels(self) -> Levels:
        """On the device."""
        return self.parts.levels_for(self.process).like(self.noise.initial)

    def most_rounds(self) -> int:
        """See `FixedPointSolve`."""
        levels = self.parts.levels_for(self.process)
        more = int(levels.checked.sum())  # for the check of each
        return super().most_rounds() + sum(_ROUNDS[: len(levels)]) + more

    def _pattern(self) -> Pattern:
        pattern = super()._pattern()
        return replace(pattern, span=self.N) if len(self.levels) else pattern

    def start(self, guess: Guess | None, condition: Tensor | None) -> None:
        """See `FixedPointSolve`."""
        super().start(guess, condition)
        L = len(self.levels)
        # Where the first states are given and not solved, the nodes do not fit.
        self.level.fill_(0 if self.first == 0 else L)
        self.begins_with = 1 if self.first == 0 else self.sizes
        for kept in (self._rounds_on_level, self._rho, self._known, self._due):
            kept.zero_()
        self._last.fill_(torch.inf)
        # A level of all steps that is the only one is no sign of a decision.
        self._care.fill_(_CARE if self.first == 0 and L > 1 else 1.0)
        if L:
            X = self._model(self.X[:, -1])
            self.X.copy_(where(self.level < L, X, self.X))
            self._finite_X.copy_(self.X)

    def _model(self, r: Tensor) -> Tensor:
        """(batch, N + 1, *shape) states of the linear model with the clean sample `r` and no remainder.

        Z_s = X_s - signal_s r obeys Z_{s+1} = Phi_s Z_s + q_s.
        """
        process, noise, N = self.process, self.noise, self.N
        ones = (1,) * (r.ndim - 1)
        scale = process.signal
        left = process.clean_weight + process.B * scale[:-1] - scale[1:]
        q = left.reshape(N, *ones) * r[:, None] + process.c.reshape(N, *ones) * noise.steps
        first = noise.initial - scale[0] * r
        q[:, 0] += self.parts.splitting.times(process, 0, first)
        steps = torch.arange(N, device=r.device).expand(len(r), N)
        Z = self.propagate(q, steps) + q
        return torch.cat(
            [noise.initial[:, None], Z + scale[1:].reshape(N, *ones) * r[:, None]], dim=1
        )

    def wanted(self) -> Tensor:
        """See `RecordableSolve`: the finest level of any sample in flight, past the last one as on it."""
        if not len(self.levels):
            return super().wanted()
        self._to_be_asked()
        size = (self.level + 1).clamp(max=self.sizes)
        return size.masked_fill(~self.alive(), 0).amax()

    def select(self, rows: Rows, size: int | None) -> Rows:
        """See `FixedPointSolve`: a round of size s is of what level s - 1 may ask, which is among it
        whatever the levels below may."""
        L = len(self.levels)
        if not L:
            return rows
        asked = self._to_be_asked()
        at_nodes = (self.level < L)[:, None]
        level = self.level.clamp(max=L - 1)
        nodes, checks = self.levels.nodes[level], self.levels.checks[level]
        rows = replace(
            rows,
            seen=torch.where(at_nodes, nodes & rows.valid, rows.seen),
            fresh=torch.where(at_nodes, asked & rows.valid, rows.seen),
            checked=checks & self._due[:, None] & at_nodes & rows.valid,
            mixed=rows.valid & ~at_nodes,
            sparse=True,
        )
        if size is None:
            return rows
        # Which of them are needed is not known on the host.
        chosen = (self.levels.steps[size - 1] + self.N * rows.live[:, None]).flatten()
        return replace(rows, chosen=chosen, mixed=None if size < L else rows.mixed)

    def _to_be_asked(self) -> Tensor:
        """(batch, N) nodes that the network was not asked for yet, or whose states moved since.

        Where there are none on a sample's level, a further round there would find the same, and the
        sample climbs to the next level that has some.
        """
        L = len(self.levels)
        moved = largest(self.X[:, :-1] - self.asked)[:, None] > self.levels.slack
        fresh = self.levels.nodes & (moved | ~self._known[:, None])  # (batch, L, N)
        level = self.level[:, None]
        check = self._due[:, None] & (self._numbers == level)
        useful = (fresh.any(dim=2) | check) & (self._numbers >= level)
        target = self._numbers.masked_fill(~useful, L).amin(dim=1)
        self._climb_to(torch.where(self.alive(), target, self.level))
        own = self.level.clamp(max=L - 1)[:, None, None].expand(-1, 1, self.N)
        return fresh.gather(1, own)[:, 0]

    def _climb_to(self, level: Tensor) -> None:
        """Put the samples on `level` (batch,), which is none below their own."""
        up = level > self.level
        self.level.copy_(level)
        self._rounds_on_level.masked_fill_(up, 0)
        self._last.masked_fill_(up, torch.inf)
        self._due.masked_fill_(up, False)

    def correct(self, rows: Rows, target: Tensor) -> Change:
        """See `FixedPointSolve`; looks at the rows that are checked, too."""
        change = super().correct(rows, target)
        if rows.checked is not None:
            defect = largest(target - change.arrived - change.residual) / self.levels.defect
            self._defect = defect.masked_fill(~rows.checked, 0).amax(dim=1)
        return change

    def judge(self, rows: Rows, change: Change, correction: Tensor, known: Tensor) -> Verdict:
        """See `FixedPointSolve`: at nodes all rows pass, or none."""
        L = len(self.levels)
        if not L:
            return super().judge(rows, change, correction, known)
        level, care = rows.of(self.level), rows.of(self._care)
        past = torch.where(level >= L, care, 1.0)[:, None]
        careful = change._replace(residual=times(change.residual, past))
        verdict = super().judge(rows, careful, times(correction, past), known)

        at_nodes, size = (level < L) & (rows.height > 0), verdict.error.amax(dim=1)
        on_level, ratio = self._note(rows, at_nodes, size)
        rho = rows.of(self._rho).clamp(*_CONTRACTION)
        tolerance, own = self.parts.tolerance or 0.0, level.clamp(max=L - 1)
        floor, checkable = self.levels.floor[own], self._checkable[own]
        care = torch.where(level == L - 1, care, 1.0)

        def estimated(size: Tensor, floor: Tensor) -> Tensor:
            return care * (rho * size + floor) / (1 - rho)

        def small(size: Tensor) -> Tensor:
            return (estimated(size, floor) <= _TRUST * tolerance) & (size <= tolerance / 2)

        broken = (rows.seen & ~known).any(dim=1) | ~is_finite(size)
        passed = small(size) & ~broken
        assert rows.checked is not None
        # Before the states are at rest a check may fail and mean nothing.
        believed = self._defect * floor / (1 - rho) <= _BELIEVED * tolerance
        done = passed & believed & (rows.checked.any(dim=1) | ~checkable)

        up = (on_level >= self._most[level]) | (ratio > self._slow[level])
        if L > 1:
            up |= (level == 0) & (size <= _NEAR * tolerance)
        up = torch.where(passed, ~believed, up)
        due = passed | small(_HOPED * rho * size)
        rows.put(self._due, checkable & due & ~done & ~up)
        target = (level + up).masked_fill(broken, L)
        target = torch.where(at_nodes, target, level)
        if rows.whole:
            self._climb_to(target)
        else:
            self._climb_to(self.level.index_copy(0, rows.live, target))
        final = rows.height * done
        estimate = estimated(size, floor * self._defect.clamp(min=1))
        return Verdict(
            torch.where(at_nodes, final, verdict.leading),
            torch.where(at_nodes, final, verdict.final),
            torch.where(at_nodes[:, None], estimate[:, None], verdict.error),
        )

    def _note(self, rows: Rows, at_nodes: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what a round at nodes has asked, and how much of the correction before it is left.

        Args:
            size: (n,) largest correction of any state.

        Returns:
            (n,) rounds on the level, and (n,) ratio of successive corrections, 0 after a level was climbed.
        """
        asked = at_nodes[:, None] & rows.fresh
        rows.put(self.asked, where(asked, rows.of(self.X)[:, :-1], rows.of(self.asked)))
        rows.put(self._known, rows.of(self._known) | asked)
        on_level = rows.of(self._rounds_on_level) + at_nodes
        rows.put(self._rounds_on_level, on_level)
        ratio = size / rows.of(self._last)
        rows.put(self._rho, torch.maximum(0.5 * rows.of(self._rho), ratio))
        rows.put(self._last, size.clamp(min=torch.finfo(size.dtype).tiny))
        return on_level, ratio
