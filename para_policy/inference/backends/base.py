"""Backend: prepares a network body for one batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from para_policy.inference.config import Precision, Size

Runner = Callable[[], Tensor]
"""Evaluates the network on what its input buffers hold now. The output may be overwritten by the
next call."""

Prepare = Callable[[Sequence[Tensor], Size], Runner]
"""`prepare(buffers, size)` compiles for exactly `size.rows` rows: inputs (rows, ...), at addresses
that stay, to outputs (rows, *shape) in float32. Raises whatever the compiler raises."""


Rows = Callable[..., Tensor]
"""The network body itself: any number of rows (M, ...) to outputs (M, *shape) in float32."""


class Backend(Protocol):
    """One way to run a network.

    Attributes:
        name: in options and reports.
        static: runners are bound to buffers of one size, and `load` returns what prepares them;
            otherwise it returns what takes any number of rows as they come.
        repacks: whether each size has a copy of the weights of its own.
    """

    name: str
    static: bool
    repacks: bool

    def check(self, device: torch.device, precision: Precision) -> None:
        """Raise UnavailableError where the backend cannot work: cheap, nothing is compiled."""
        ...

    def load(self, body: nn.Module, precision: Precision) -> Prepare | Rows:
        """Take `body(*inputs)`, rows to rows, with float32 weights; it is left unchanged."""
        ...
