"""torch.compile: kernels that TorchInductor generates for one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from para_policy.inference.backends.base import Prepare, Runner
from para_policy.inference.config import Precision, Size
from para_policy.inference.precision import check_precision, in_precision

# All sizes, and all networks of one class, count as recompilations of the same code; beyond the
# default limit of 8, dynamo would give up.
_RECOMPILATIONS = 1024


class Compile:
    """https://docs.pytorch.org/docs/stable/torch.compiler.html; needs a C++ compiler, or Triton."""

    name = "compile"
    static = True
    repacks = False

    def check(self, device: torch.device, precision: Precision) -> None:
        check_precision(device, precision)

    def load(self, body: nn.Module, precision: Precision) -> Prepare:
        return partial(compiled, in_precision(body, precision))


def compiled(body: nn.Module, buffers: Sequence[Tensor], size: Size) -> Runner:
    """Compile for these buffers, now. A graph break is an error: the network would run piecewise."""
    function = torch.compile(body, fullgraph=True, dynamic=False)

    def run() -> Tensor:
        with cpu_threads(size.threads, buffers[0].device):
            return function(*buffers)

    with torch._dynamo.config.patch(
        cache_size_limit=_RECOMPILATIONS, accumulated_cache_size_limit=_RECOMPILATIONS
    ):
        run()
    return run


@contextmanager
def cpu_threads(count: int | None, device: torch.device) -> Iterator[None]:
    """Let PyTorch use so many; None, and on a GPU any number, leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before or device.type != "cpu":
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
