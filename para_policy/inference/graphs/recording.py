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

    def record(self, work: Work, restart: Work) -> Work:
        """Return what replays `work`. It may have run before, so its state must be set afterwards.

        Args:
            restart: called before each run of `work`, and not recorded.

        Raises:
            RuntimeError: if it cannot be recorded, or there is not enough memory.
        """
        ...

    def watch(self, number: Tensor) -> Callable[[], int]:
        """Begin to read an int64 () that replayed work left; the value, once the caller waits for it."""
        ...

    def memory_bytes(self) -> int:
        """Memory that is in use where recordings are, as far as it can be known."""
        ...


class CudaGraphs:
    """CUDA graphs: one launch for a whole recording, without work on the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One pool for all graphs: they run one after the other, and leave nothing in it.
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work, restart: Work) -> Work:
        graph, _ = capture(work, self._device, self._pool, restart)
        return graph.replay

    def watch(self, number: Tensor) -> Callable[[], int]:
        copied = torch.empty((), dtype=torch.int64, pin_memory=True)
        copied.copy_(number, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(self._device))

        def read() -> int:
            arrived.synchronize()
            return int(copied)

        return read

    def memory_bytes(self) -> int:
        """Of all tensors. Recordings share what they compute with; what the driver keeps is not known."""
        return torch.cuda.memory_allocated(self._device)


class Repeat:
    """Does the work again: the same steps on devices that cannot record."""

    def record(self, work: Work, restart: Work) -> Work:
        restart()
        work()
        return work

    def watch(self, number: Tensor) -> Callable[[], int]:
        value = int(number)
        return lambda: value

    def memory_bytes(self) -> int:
        return 0
