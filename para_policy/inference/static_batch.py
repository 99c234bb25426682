"""One batch size of a network: input buffers at addresses that stay, and what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference.backends import Prepare
from para_policy.inference.config import Precision, Size
from para_policy.inference.failures import attempt
from para_policy.inference.precision import check_output, tensor_cores


class StaticBatch:
    """A network prepared for one size, and checked.

    Args:
        prepare: of a backend that has loaded `body`.
        body: to check against, in float32.
        example: inputs, at least one row.
        size: rows, and threads for them.
        precision: of the backend.

    Attributes:
        memory_bytes: of the buffers; on a GPU of all that preparation has reserved, if that is more.

    Raises:
        UnavailableError: if the backend fails, or computes something else than `body`.
        InputError: if `body` returns no tensor of as many rows.
        Exception: what `body` itself raises for such inputs.
    """

    def __init__(
        self,
        prepare: Prepare,
        body: nn.Module,
        example: Sequence[Tensor],
        size: Size,
        precision: Precision,
    ) -> None:
        before = _reserved(example[0].device)
        self._buffers = tuple(_repeated(v, size.rows) for v in example)
        # What the caller has done wrong is no fault of the backend.
        _check_rows(body(*self._buffers), size.rows)
        self._runner = attempt(lambda: prepare(self._buffers, size))
        # Other values than at compilation: what was taken for a constant is found out.
        _disturb(self._buffers)
        with tensor_cores("float32"):
            reference = body(*self._buffers)
        check_output(attempt(self._runner), reference, precision)
        # A capture gives back what the allocator held for others: that can be more than it takes.
        grown = _reserved(example[0].device) - before
        self.memory_bytes = max(grown, sum(v.nbytes for v in self._buffers))
        self._written = 0

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """Outputs (rows, *shape) for inputs (rows, ...) of at most the size; overwritten by the next
        call. Further rows of the buffers are finite, and nobody looks."""
        rows = len(inputs[0])
        for buffer, value in zip(self._buffers, inputs, strict=True):
            buffer[:rows].copy_(value)
            # NaN would stay there, and a backend that cannot tell rows apart find it in all of them.
            buffer[rows : self._written].zero_()
        self._written = rows
        return self._runner()[:rows]


def _check_rows(output: Any, rows: int) -> None:
    if not isinstance(output, Tensor) or output.shape[:1] != (rows,):
        found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise InputError(f"the network returns {found}; expected a tensor of {rows} rows")


def _repeated(example: Tensor, rows: int) -> Tensor:
    """A buffer (rows, ...) that holds the rows of `example`, again and again."""
    return example[torch.arange(rows, device=example.device) % len(example)].contiguous()


def _disturb(buffers: Sequence[Tensor]) -> None:
    """Add noise to all numbers, so that no two rows agree and all are finite; indices stay.

    Global generators are not touched: samples of others depend on them.
    """
    for i, buffer in enumerate(buffers):
        if buffer.is_floating_point():
            generator = torch.Generator(buffer.device).manual_seed(i)
            noise = torch.empty_like(buffer).normal_(generator=generator)
            buffer.nan_to_num_(0, 0, 0).add_(noise)


def _reserved(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
