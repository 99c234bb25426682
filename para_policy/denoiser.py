"""The network as samplers see it: condition bound, one batched call per round, calls counted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from para_policy.errors import InputError

Network = Callable[..., Tensor]


class Denoiser:
    """A network with its condition bound.

    Args:
        network: `network(x, t)` or, with a condition, `network(x, t, condition)`: states (M, *shape)
            and timesteps (M,) to the scheduler's prediction type (M, *shape).
        condition: (batch, ...), row i belongs to sample i; None for an unconditional network.

    Attributes:
        rounds: batched calls so far; one sequential sample of N steps needs N.
        evals: network rows so far, the measure of work.

    >>> denoiser = Denoiser(lambda x, t: 0 * x)
    >>> _ = denoiser(torch.zeros(3, 16, 2), torch.tensor([99, 98, 97]), torch.zeros(3, dtype=torch.int64))
    >>> denoiser.rounds, denoiser.evals
    (1, 3)
    """

    def __init__(self, network: Network, condition: Tensor | None = None) -> None:
        self._network = network
        self._condition = condition
        self.rounds = 0
        self.evals = 0

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate states `x` (M, *shape) at timesteps `t` (M,); row m belongs to `sample[m]`.

        Raises:
            InputError: if the network changes the shape of its input.
        """
        self.rounds += 1
        self.evals += len(x)
        output = (
            self._network(x, t)
            if self._condition is None
            else self._network(x, t, self._condition[sample])
        )
        if output.shape != x.shape:
            raise InputError(
                f"the network maps {tuple(x.shape)} to {tuple(output.shape)}; the shape must not change"
            )
        return output
