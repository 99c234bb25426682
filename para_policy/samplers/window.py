"""Window: the rows that a round works on, and those of them that the network sees.

Beyond the window every so-many-th row may be evaluated, the look-ahead, and the others are
interpolated. The clean end of a trajectory changes until the noisy end has settled, so to evaluate
all of it in every round is waste; a few rows tell enough to move it along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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
        live: (n,) samples of the batch.
        whole: these are all of them.
        offset: (span,) place of each row in the window.
        steps: (n, span) their steps, those past the end clamped to the last one.
        valid: (n, span) rows of samples in flight that are not past the end.
        seen: (n, span) those whose residual the network tells; the others are interpolated.
        fresh: (n, span) those of the seen rows that it tells in this round; nothing has moved the
            others since it did, and their residual is 0.
        mixed: (n, span) those that acceleration works on; None for none.
        places: (M,) what is evaluated whatever is seen, as places in the flattened (n, span), the
            fresh rows among them; None for exactly the fresh rows.
    """

    live: Tensor
    whole: bool
    offset: Tensor
    steps: Tensor
    valid: Tensor
    seen: Tensor
    fresh: Tensor
    mixed: Tensor | None
    places: Tensor | None

    @classmethod
    def compact(cls, pattern: Pattern, accepted: Tensor, alive: Tensor, N: int) -> Rows:
        """Exactly the rows that are needed, of the samples that are in flight.

        How many these are must be known here, so a GPU is waited for.

        Args:
            accepted: (batch,) first step of each sample that is not final.
            alive: (batch,) samples in flight.
            N: number of steps.
        """
        live = alive.nonzero()[:, 0]
        whole = len(live) == len(alive)
        steps, valid, seen = _places(pattern, accepted if whole else accepted[live], None, N)
        return cls(live, whole, pattern.offset, steps, valid, seen, seen, valid, None)

    @classmethod
    def static(cls, pattern: Pattern, accepted: Tensor, alive: Tensor, N: int) -> Rows:
        """As many rows in every round, so that nothing is read back: rows past the end and samples
        that are done are evaluated in vain. Arguments as for `compact`."""
        live = torch.arange(len(accepted), device=accepted.device)
        steps, valid, seen = _places(pattern, accepted, alive, N)
        columns = pattern.offset[: pattern.window].expand(len(accepted), -1)
        if pattern.stride is not None:
            beyond = pattern.offset[pattern.window :: pattern.stride].expand(len(accepted), -1)
            last = (N - 1 - accepted).clamp(min=0, max=pattern.span - 1)
            columns = torch.cat([columns, beyond, last[:, None]], dim=1)
        places = (columns + pattern.span * live[:, None]).flatten()
        return cls(live, True, pattern.offset, steps, valid, seen, seen, valid, places)

    @cached_property
    def at(self) -> Tensor:
        """(M,) what is evaluated. Rows that are not fresh, or a place that is there twice, are ignored."""
        return self.fresh.flatten().nonzero()[:, 0] if self.places is None else self.places

    @cached_property
    def height(self) -> Tensor:
        """(n,) valid rows."""
        return self.valid.sum(dim=1)

    @cached_property
    def sparse(self) -> bool:
        """Some valid rows are not seen, perhaps."""
        if self.seen is self.valid:
            return False
        return self.places is not None or bool((self.seen != self.valid).any())

    def of(self, value: Tensor) -> Tensor:
        """Entries (n, ...) of these samples in `value` (batch, ...); maybe that tensor itself."""
        return value if self.whole else value[self.live]

    def put(self, kept: Tensor, value: Tensor) -> None:
        """Write `value` (n, ...) to the entries of these samples in `kept` (batch, ...)."""
        if self.whole:
            kept.copy_(value)
        else:
            kept[self.live] = value


Choose = Callable[[Pattern, Tensor, Tensor, int], Rows]
"""`Rows.compact` or `Rows.static`."""


def _places(
    pattern: Pattern, accepted: Tensor, alive: Tensor | None, N: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`steps`, `valid` and `seen` of `Rows`; without `alive` all samples are in flight."""
    steps = accepted[:, None] + pattern.offset
    valid = steps < N
    if alive is not None:
        valid &= alive[:, None]
    steps = steps.clamp_(max=N - 1)
    if pattern.stride is None:
        return steps, valid, valid
    return steps, valid, valid & (pattern.chosen | (steps == N - 1))


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
