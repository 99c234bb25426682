"""Work captured in a CUDA graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_WARM_UPS = 3

Result = TypeVar("Result")


def capture(
    work: Callable[[], Result],
    device: torch.device,
    pool: Any,
    restart: Callable[[], None] = lambda: None,
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Capture the kernels of `work`; replays write to the tensors of the result that is returned.

    The work runs a few times before: first calls choose kernels and allocate workspaces, which must
    not be captured. All of it is on a stream of the device's own, as workspaces belong to streams.

    Args:
        work: reads nothing back, and takes its inputs from tensors that stay.
        device: of all its tensors.
        pool: of memory, from `torch.cuda.graph_pool_handle`; graphs may share one if they never run
            at the same time and no result is read after the next replay.
        restart: called before each run, for work that goes on from where the last run ended.

    Raises:
        RuntimeError: if it cannot be captured, or there is not enough memory.
    """
    with torch.cuda.device(device):
        present = torch.cuda.current_stream()
        aside = _side_stream(torch.cuda.current_device())
        try:
            aside.wait_stream(present)
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    restart()
                    work()
                restart()
            present.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads, of a ROS node for example, may go on using the GPU.
            with torch.cuda.graph(
                graph, pool=pool, stream=aside, capture_error_mode="thread_local"
            ):
                result = work()
        finally:
            # A capture that fails leaves its stream in place of the present one.
            torch.cuda.set_stream(present)
    return graph, result


@functools.cache
def _side_stream(index: int) -> torch.cuda.Stream:
    """The one of a device; torch's own for captures is on the first device that captured."""
    return torch.cuda.Stream(index)
