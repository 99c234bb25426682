"""Recorders: work on tensors that stay, recorded once and replayed with what they hold then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from para_policy.inference.graphs.capture import capture

Work = Callable[[], None]


class Recorder(Protocol):
    """Records work.

    The work must not read anything back, and must find its inputs and leave its results in tensors
    that exist already.
    """

    def record(self, work: Work) -> Work:
        """Return what replays `work`. It may have run before, so its state must be set afterwards.

        Raises:
            RuntimeError: if it cannot be recorded, or there is not enough memory.
        """
        ...

    def watch(self, flag: Tensor) -> Callable[[], bool]:
        """Begin to read a bool () that replayed work left; the value, once the caller waits for it."""
        ...


class CudaGraphs:
    """CUDA graphs: one launch for a whole recording, without work on the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One pool for all graphs: they run one after the other, and leave nothing in it.
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        graph, _ = capture(work, self._device, self._pool)
        return graph.replay

    def watch(self, flag: Tensor) -> Callable[[], bool]:
        copied = torch.empty((), dtype=torch.bool, pin_memory=True)
        copied.copy_(flag, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self._device))

        def read() -> bool:
            arrived.synchronize()
            return bool(copied)

        return read


class Repeat:
    """Does the work again: the same steps on devices that cannot record."""

    def record(self, work: Work) -> Work:
        work()
        return work

    def watch(self, flag: Tensor) -> Callable[[], bool]:
        value = bool(flag)
        return lambda: value
