"""CUDA graphs: all kernels of a network in one launch.

For networks of robots the time to launch kernels one by one from Python is longer than the time
that they run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from para_policy.inference.backends.base import Prepare, Runner
from para_policy.inference.backends.compile import compiled
from para_policy.inference.config import Precision, Size
from para_policy.inference.failures import UnavailableError, is_out_of_memory, reason
from para_policy.inference.graphs.capture import capture
from para_policy.inference.precision import check_precision, in_precision

_LOG = logging.getLogger(__name__)


class CudaGraph:
    """https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs of the compiled network, or
    of the network as it is where it cannot be compiled.

    The graphs of all sizes share one pool of memory: an output holds until the next call only.

    Attributes:
        not_compiled: why the network is captured as it is; None if it is compiled.
    """

    name = "cuda-graph"
    static = True
    repacks = False

    def __init__(self) -> None:
        self.not_compiled: str | None = None
        self._pool: Any = None

    def check(self, device: torch.device, precision: Precision) -> None:
        if device.type != "cuda":
            raise UnavailableError(f"it needs an NVIDIA GPU, not {device.type}")
        check_precision(device, precision)

    def load(self, body: nn.Module, precision: Precision) -> Prepare:
        return partial(self._prepare, in_precision(body, precision))

    def _prepare(self, body: nn.Module, buffers: Sequence[Tensor], size: Size) -> Runner:
        plain = self._plain(body, buffers, size)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, output = capture(plain, buffers[0].device, self._pool)

        def run() -> Tensor:
            # Whoever captures more than the network captures its kernels: graphs do not nest.
            if torch.cuda.is_current_stream_capturing():
                return plain()
            graph.replay()
            return output

        return run

    def _plain(self, body: nn.Module, buffers: Sequence[Tensor], size: Size) -> Runner:
        if self.not_compiled is None:
            try:
                return compiled(body, buffers, size)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                self.not_compiled = reason(error)
                _LOG.info("engine 'cuda-graph' without torch.compile (%s)", self.not_compiled)
        return lambda: body(*buffers)
