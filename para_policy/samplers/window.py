"""Window: the rows that a round works on, and those of them that the network sees.

Beyond the window every so-many-th row may be evaluated, the look-ahead, and the others are
interpolated. The clean end of a trajectory changes until the noisy end has settled, so to evaluate
all of it in every round is waste; a few rows tell enough to move it along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from para_policy.samplers.reading import places


@dataclass(frozen=True)
class Pattern:
    """Places of a window, and those that the network sees.

    Attributes:
        span: places, from the first row that is not final.
        window: so many places are all seen.
        stride: beyond them every so-many-th place is seen, and the last row; None if nothing is
            beyond them.
        device: of the rows.
    """

    span: int
    window: int
    stride: int | None
    device: torch.device

    @property
    def size(self) -> int:
        """Rows of a sample that are evaluated where nothing is read back."""
        if self.stride is None:
            return self.window
        return self.window + len(range(self.window, self.span, self.stride)) + 1

    @cached_property
    def offset(self) -> Tensor:
        """(span,) the places."""
        return torch.arange(self.span, device=self.device)

    @cached_property
    def chosen(self) -> Tensor:
        """(span,) those that are seen, but for the last row."""
        assert self.stride is not None
        return _chosen(self.offset, self.window, self.stride)


@dataclass(frozen=True)
class Rows:
    """The rows of one round.

    Attributes:
        pattern: of the window.
        live: (n,) samples of the batch.
        whole: these are all of them.
        steps: (n, span) their steps, those past the end clamped to the last one.
        valid: (n, span) rows of samples in flight that are not past the end.
        seen: (n, span) those whose residual the network tells; the others are interpolated.
        fresh: (n, span) those of the seen rows that it tells in this round; nothing has moved the
            others since it did, and their residual is 0.
        mixed: (n, span) those that acceleration works on; None for none.
        checked: (n, span) those that it is asked about only to see how well they are interpolated;
            None for none.
        sparse: some valid rows are not seen, perhaps.
        chosen: (M,) what is evaluated whatever is asked, as places in the flattened (n, span), the
            asked rows among them; None for all that the pattern may see.
    """

    pattern: Pattern
    live: Tensor
    whole: bool
    steps: Tensor
    valid: Tensor
    seen: Tensor
    fresh: Tensor
    mixed: Tensor | None
    sparse: bool
    chosen: Tensor | None = None
    checked: Tensor | None = None

    @classmethod
    def static(cls, pattern: Pattern, accepted: Tensor, alive: Tensor, N: int) -> Rows:
        """As many rows in every round, so that nothing is read back: rows past the end and samples
        that are done are evaluated in vain.

        Args:
            accepted: (batch,) first step of each sample that is not final.
            alive: (batch,) samples in flight.
            N: number of steps.
        """
        live = torch.arange(len(accepted), device=accepted.device)
        steps = accepted[:, None] + pattern.offset
        valid = (steps < N) & alive[:, None]
        steps = steps.clamp_(max=N - 1)
        sparse = pattern.stride is not None
        seen = valid & (pattern.chosen | (steps == N - 1)) if sparse else valid
        return cls(pattern, live, True, steps, valid, seen, seen, valid, sparse)

    def compact(self) -> Rows:
        """Exactly the asked rows, of the samples that are in flight.

        How many these are must be known on the host, so a GPU is waited for, once.
        """
        alive, mixed, checked = self.valid.any(dim=1), self.mixed, self.checked
        masks = (alive, self.asked, self.seen != self.valid, self.valid if mixed is None else mixed)
        samples, rows, unseen, to_mix = torch.stack([mask.sum() for mask in masks]).tolist()
        whole = samples == len(alive)
        live = self.live if whole else places(alive, samples)

        def of(value: Tensor) -> Tensor:
            return value if whole else value[live]

        valid = of(self.valid)
        return replace(
            self,
            live=live,
            whole=whole,
            steps=of(self.steps),
            valid=valid,
            seen=of(self.seen) if unseen else valid,
            fresh=of(self.fresh),
            mixed=None if mixed is None or not to_mix else of(mixed),
            sparse=unseen > 0,
            chosen=places(of(self.asked).flatten(), rows),
            checked=None if checked is None else of(checked),
        )

    @property
    def asked(self) -> Tensor:
        """(n, span) what the network is asked."""
        return self.fresh if self.checked is None else self.fresh | self.checked

    @cached_property
    def at(self) -> Tensor:
        """(M,) what is evaluated. Rows that are not asked, or a place that is there twice, are ignored."""
        if self.chosen is not None:
            return self.chosen
        pattern, samples = self.pattern, len(self.live)
        columns = pattern.offset[: pattern.window].expand(samples, -1)
        if pattern.stride is not None:
            beyond = pattern.offset[pattern.window :: pattern.stride].expand(samples, -1)
            last = pattern.span - 1 - self.steps[:, :1]  # here the window reaches to the last step
            columns = torch.cat([columns, beyond, last], dim=1)
        return (columns + pattern.span * self.live[:, None]).flatten()

    @property
    def offset(self) -> Tensor:
        """(span,) place of each row in the window."""
        return self.pattern.offset

    @cached_property
    def height(self) -> Tensor:
        """(n,) valid rows."""
        return self.valid.sum(dim=1)

    def of(self, value: Tensor) -> Tensor:
        """Entries (n, ...) of these samples in `value` (batch, ...); maybe that tensor itself."""
        return value if self.whole else value[self.live]

    def put(self, kept: Tensor, value: Tensor) -> None:
        """Write `value` (n, ...) to the entries of these samples in `kept` (batch, ...)."""
        if self.whole:
            kept.copy_(value)
        else:
            kept[self.live] = value


def evaluated(rows: Tensor, valid: Tensor, window: int, stride: int, N: int) -> Tensor:
    """Rows (n, span) that the network sees: the window, every `stride`-th row after it, the last."""
    offset = torch.arange(rows.shape[1], device=rows.device)
    return valid & (_chosen(offset, window, stride) | (rows == N - 1))


def _chosen(offset: Tensor, window: int, stride: int) -> Tensor:
    return (offset < window) | ((offset - window) % stride == 0)


def interpolate(residual: Tensor, seen: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Fill the residuals of rows that were not evaluated.

    A residual is `weight` times the error of the clean-sample prediction, and it is this error that
    varies smoothly along the steps.

    Args:
        residual: (n, span, *shape), meaningful where `seen`.
        seen: (n, span) bool; the first row, and the last valid one, always are.
        rows: (n, span) steps.
        weight: (N,) clean-sample weight of each step.
    """
    position = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    span = rows.shape[1]
    before = torch.where(seen, position, 0).cummax(dim=1).values
    after = torch.where(seen, position, span - 1).flip(1).cummin(dim=1).values.flip(1)
    shape = rows.shape + (1,) * (residual.ndim - 2)
    weight = weight[rows].reshape(shape)
    error = torch.where(weight != 0, residual / weight, 0.0)  # no weight: nothing to learn from
    share = (position - before) / (after - before).clamp(min=1)
    sample = torch.arange(len(rows), device=rows.device)[:, None]
    between = torch.lerp(
        error[sample, before], error[sample, after], share.reshape(shape).to(error)
    )
    return torch.where(seen.reshape(shape), residual, between * weight)
