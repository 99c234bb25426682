"""The split of a network's work for inference: by weights, by observation, by row.

Timesteps are few, so their part is tabulated once for each set of weights; the observation is the
same for all rows of a solve, so its part is computed once per chunk. The rest, most of the work, is a
module of rows, which an engine runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.diffusion.denoiser import BoundNetwork
from para_policy.networks.further import Wider

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


def split(network: nn.Module, whole_timesteps: int) -> Split:
    """The network's own split, or none: all of it is computed for each row.

    Args:
        whole_timesteps: T, where solves tell the network of whole timesteps 0 .. T-1; 0 where time is
            continuous, and nothing can be tabulated.
    """
    own: Callable[[int], Split] | None = getattr(network, "split", None)
    return Whole(network) if own is None else own(whole_timesteps)


@dataclass(frozen=True, eq=False)
class Whole:
    """A network of which nothing is known."""

    rows: nn.Module

    def bind(self, condition: Tensor, run: RunRows) -> BoundNetwork:
        """See `Split`."""
        return lambda x, t, sample: run(x, t, condition[sample])


class Terms:
    """The split of a network whose blocks see step and observation through one linear map of both.

    What they see, the terms, is the sum of the step's part and of the observation's, and of that of the
    inputs which follow the observation in a network that was widened, see `networks.further`.

    Args:
        rows: states, and the terms of all blocks one after another, to predictions.
        maps: of each block, a nonlinearity and then a linear map, of the features of the step
            followed by those of the observation.
        embed: timesteps (M,) to the features of the step (M, width).
        whole_timesteps: see `split`.
    """

    @torch.no_grad()
    def __init__(
        self,
        rows: nn.Module,
        maps: Sequence[nn.Module],
        embed: nn.Module,
        width: int,
        whole_timesteps: int,
    ) -> None:
        weight = torch.cat([each.get_parameter("1.weight") for each in maps])
        self.rows = rows.eval()
        self._embed, self._bend = embed, maps[0].get_submodule("0")
        self._of_step = weight[:, :width].contiguous()
        self._of_condition = weight[:, width:].contiguous()
        further: list[Tensor] = [each.further for each in maps if isinstance(each, Wider)]
        self._of_further = torch.cat(further) if further else None
        self._bias = torch.cat([each.get_parameter("1.bias") for each in maps])
        steps = torch.arange(whole_timesteps, device=weight.device)
        self._table = self._step(steps) if whole_timesteps else None

    def bind(self, condition: Tensor, run: RunRows) -> BoundNetwork:
        """See `Split`."""
        observed = self._observed(condition)

        def bound(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            table = None if t.is_floating_point() else self._table
            of_step = self._step(t) if table is None else table[t]
            return run(x, of_step + observed[sample])

        return bound

    def _observed(self, condition: Tensor) -> Tensor:
        if self._of_further is None:
            return F.linear(self._bend(condition), self._of_condition)
        own, further = condition.tensor_split([self._of_condition.shape[1]], dim=1)
        of_own = F.linear(self._bend(own.contiguous()), self._of_condition)
        return of_own + F.linear(further, self._of_further)

    def _step(self, t: Tensor) -> Tensor:
        return F.linear(self._bend(self._embed(t)), self._of_step, self._bias)
