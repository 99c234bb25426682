"""Which rows a round works on, and which of them the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Network
from para_policy.samplers.lookahead import evaluated

Networks = tuple[tuple[Network | None, float], ...]
"""Networks that a round evaluates, each with its share of the step; None is the base network."""


@dataclass(frozen=True)
class Pattern:
    """Places of a window, and which of them the network sees.

    Attributes:
        span: places, from the first row that is not final.
        window: so many places are all seen.
        stride: beyond them every so-many-th place is seen, and the last row; None if nothing is
            beyond them.
    """

    span: int
    window: int
    stride: int | None


@dataclass(frozen=True)
class Rows:
    """The rows of one round.

    Attributes:
        live: (n,) samples of the batch.
        offset: (span,) place of each row in the window.
        steps: (n, span) their steps, those past the end clamped to the last one.
        valid: (n, span) rows of samples in flight that are not past the end.
        seen: (n, span) those that the network evaluates; the others are interpolated.
        at: (M,) what is evaluated, as places in the flattened (n, span): all that are seen. Others
            among them, or a place that is there twice, are ignored.
        networks: evaluated on them.
        sparse: some valid rows are not seen, perhaps.
    """

    live: Tensor
    offset: Tensor
    steps: Tensor
    valid: Tensor
    seen: Tensor
    at: Tensor
    networks: Networks
    sparse: bool

    @property
    def drafts(self) -> bool:
        """One of the networks is not the base network."""
        return any(network is not None for network, _ in self.networks)

    @classmethod
    def compact(
        cls, pattern: Pattern, frozen: Tensor, alive: Tensor, N: int, networks: Networks
    ) -> Rows:
        """Exactly the rows that are needed, of the samples that are in flight.

        How many these are must be known here, so a GPU is waited for.

        Args:
            frozen: (batch,) first step of each sample that is not final.
            alive: (batch,) samples in flight.
            N: number of steps.
        """
        live = alive.nonzero()[:, 0]
        offset, steps, valid, seen = _seen(pattern, frozen[live], alive[live], N)
        at = seen.flatten().nonzero()[:, 0]
        sparse = pattern.stride is not None and len(at) < int(valid.sum())
        return cls(live, offset, steps, valid, seen, at, networks, sparse)

    @classmethod
    def static(
        cls, pattern: Pattern, frozen: Tensor, alive: Tensor, N: int, networks: Networks
    ) -> Rows:
        """As many rows in every round, so that nothing is read back: rows past the end and samples
        that are done are evaluated in vain. Arguments as for `compact`."""
        live = torch.arange(len(frozen), device=frozen.device)
        offset, steps, valid, seen = _seen(pattern, frozen, alive, N)
        columns = offset[: pattern.window].expand(len(frozen), -1)
        if pattern.stride is not None:
            beyond = offset[pattern.window :: pattern.stride].expand(len(frozen), -1)
            last = (N - 1 - frozen).clamp(min=0, max=pattern.span - 1)
            columns = torch.cat([columns, beyond, last[:, None]], dim=1)
        at = (columns + pattern.span * live[:, None]).flatten()
        return cls(live, offset, steps, valid, seen, at, networks, pattern.stride is not None)


def _seen(
    pattern: Pattern, frozen: Tensor, alive: Tensor, N: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    offset = torch.arange(pattern.span, device=frozen.device)
    steps = frozen[:, None] + offset
    valid = (steps < N) & alive[:, None]
    steps = steps.clamp(max=N - 1)
    seen = valid
    if pattern.stride is not None:
        seen = evaluated(steps, valid, pattern.window, pattern.stride, N)
    return offset, steps, valid, seen
