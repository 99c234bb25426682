"""The split of a network's work for inference: by weights, by observation, by row.

Timesteps are few, so their part is tabulated once for each set of weights; the observation is the
same for all rows of a solve, so its part is computed once per chunk. The rest, most of the work, is a
module of rows, which an engine runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from para_policy.diffusion.denoiser import BoundNetwork

RunRows = Callable[..., Tensor]
"""Evaluates the module of rows: inputs (M, ...) each to predictions (M, *shape)."""


class Split(Protocol):
    """One set of weights, split; they must not change any more.

    Attributes:
        rows: what an engine runs. Rows of its output depend on the same rows of its inputs only.
    """

    @property
    def rows(self) -> nn.Module:
        """See above."""
        ...

    def bind(self, condition: Tensor, run: RunRows) -> BoundNetwork:
        """Do what conditions (B, C) decide; the rest is done by `run`, with the inputs of `rows`."""
        ...


def split(network: nn.Module, num_train_timesteps: int) -> Split:
    """The network's own split, or none: all of it is computed for each row."""
    own: Callable[[int], Split] | None = getattr(network, "split", None)
    return Whole(network) if own is None else own(num_train_timesteps)


@dataclass(frozen=True, eq=False)
class Whole:
    """A network of which nothing is known."""

    rows: nn.Module

    def bind(self, condition: Tensor, run: RunRows) -> BoundNetwork:
        """See `Split`."""
        return lambda x, t, sample: run(x, t, condition[sample])
