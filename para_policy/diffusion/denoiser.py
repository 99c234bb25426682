"""The network as samplers see it: condition bound, one batched call per round, calls counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from para_policy.diffusion.inpainting import Inpainting
from para_policy.errors import InputError

if TYPE_CHECKING:
    from para_policy.diffusion.process import Process

Network = Callable[..., Tensor]
"""`network(x, t)` or, with a condition, `network(x, t, condition)`.

A network may have a method `bind(condition)` that does the work that depends on the condition only,
and returns a `BoundNetwork`.
"""

BoundNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`bound(x, t, sample)`: row m belongs to the condition of `sample[m]`."""


@dataclass
class Calls:
    """Network calls of a solve: batched ones, and the rows in them."""

    rounds: int = 0
    evals: int = 0


class Denoiser:
    """A network with its condition bound.

    Args:
        network: `network(x, t)` or, with a condition, `network(x, t, condition)`: states (M, *shape)
            and timesteps (M,) to the scheduler's prediction type (M, *shape).
        condition: (batch, ...), row i belongs to sample i; None for an unconditional network.
        pad_to: fill every call up to a multiple of so many rows. Kernels depend on the size of a
            batch, so only calls of equal size give equal floats: with the same padding, a parallel
            sampler with tolerance 0 returns the floats of `sequential`.
        pad_from: leave calls with fewer rows as they are.
        known: part of the clean samples, see `Inpainting`; None where all is to be sampled.

    Attributes:
        network, condition, known: as given.
        calls: so far. One sequential sample of N steps needs N rounds; evals are the measure of work.

    >>> denoiser = Denoiser(lambda x, t: 0 * x)
    >>> _ = denoiser(torch.zeros(3, 16, 2), torch.tensor([99, 98, 97]), torch.zeros(3, dtype=torch.int64))
    >>> denoiser.rounds, denoiser.evals
    (1, 3)
    """

    def __init__(
        self,
        network: Network,
        condition: Tensor | None = None,
        *,
        pad_to: int = 1,
        pad_from: int = 1,
        known: Inpainting | None = None,
    ) -> None:
        for name, value in (("pad_to", pad_to), ("pad_from", pad_from)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; expected an integer of at least 1")
        self.network = network
        self.condition = condition
        self.known = known
        self.calls = Calls()
        self._pad_to, self._pad_from = pad_to, pad_from
        self._bound: BoundNetwork | None = None

    @property
    def rounds(self) -> int:
        """Batched calls so far."""
        return self.calls.rounds

    @property
    def evals(self) -> int:
        """Network rows so far."""
        return self.calls.evals

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate states `x` (M, *shape) at timesteps `t` (M,); row m belongs to `sample[m]`.

        Raises:
            InputError: as `answered`.
        """
        rows = len(x)
        self.calls.rounds += 1
        self.calls.evals += rows
        padding = -rows % self._pad_to if rows >= self._pad_from else 0
        if padding:
            x, t, sample = (
                torch.cat([v, v[-1:].expand(padding, *v.shape[1:])]) for v in (x, t, sample)
            )
        if self._bound is None:
            self._bound = _bind(self.network, self.condition)
        return answered(self._bound(x, t, sample), x)[:rows].to(x.dtype)

    def predict_clean(self, process: Process, x: Tensor, s: Tensor, sample: Tensor) -> Tensor:
        """Unclipped clean samples x0raw (M, *shape) at steps `s` (M,), with what is known put in.

        Args:
            process: on the device of `x`.
            x, sample: as for a call.
        """
        clean = process.predict_clean(x, self(x, process.timesteps[s], sample), s)
        return clean if self.known is None else self.known.project(clean, sample)

    def with_network(self, network: Network, further: Tensor | None = None) -> Denoiser:
        """Another network on the same condition, its calls counted with those of this one.

        Args:
            further: (batch, n) numbers that it sees after the condition; None for none.
        """
        condition = self.condition
        if further is not None:
            parts = [further] if condition is None else [condition, further.to(condition)]
            condition = torch.cat(parts, dim=1)
        other = self._like(network, condition, self.known)
        other.calls = self.calls
        return other

    def with_copies(self) -> Denoiser:
        """The same network on copies of the condition and of what is known."""
        condition = None if self.condition is None else self.condition.clone()
        known = None if self.known is None else self.known.copy()
        return self._like(self.network, condition, known)

    def unbound(self) -> Denoiser:
        """The same, which has yet to bind the condition."""
        return self._like(self.network, self.condition, self.known)

    def _like(
        self, network: Network, condition: Tensor | None, known: Inpainting | None
    ) -> Denoiser:
        pads = {"pad_to": self._pad_to, "pad_from": self._pad_from}
        return Denoiser(network, condition, known=known, **pads)


def answered(output: Any, x: Tensor) -> Tensor:
    """What a network has made of states `x`.

    Raises:
        InputError: unless it is a tensor of floating-point numbers, of the shape of `x` and beside it.
    """
    if not isinstance(output, Tensor):
        fix = "; return its attribute 'sample'" if hasattr(output, "sample") else ""
        raise InputError(f"the network returns a {type(output).__name__}, not a tensor{fix}")
    if output.shape != x.shape:
        raise InputError(
            f"the network maps {tuple(x.shape)} to {tuple(output.shape)}; the shape must not change"
        )
    if not output.is_floating_point() or output.device != x.device:
        raise InputError(
            f"the network maps {x.dtype} on {x.device} to {output.dtype} on {output.device}; "
            "expected floating-point numbers on the same device"
        )
    return output


def _bind(network: Network, condition: Tensor | None) -> BoundNetwork:
    if condition is None:
        return lambda x, t, sample: network(x, t)
    bind: Callable[[Tensor], BoundNetwork] | None = getattr(network, "bind", None)
    if bind is not None:
        return bind(condition)
    return lambda x, t, sample: network(x, t, condition[sample])
