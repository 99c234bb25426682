"""Work captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

_WARM_UPS = 3

Result = TypeVar("Result")


def capture(
    work: Callable[[], Result], device: torch.device, pool: Any
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """Capture the kernels of `work`; replays write to the tensors of the result that is returned.

    The work runs a few times before: first calls choose kernels and allocate workspaces, which must
    not be captured.

    Args:
        work: reads nothing back, and takes its inputs from tensors that stay.
        device: of all its tensors.
        pool: of memory, from `torch.cuda.graph_pool_handle`; graphs may share one if they never run
            at the same time and no result is read after the next replay.

    Raises:
        RuntimeError: if it cannot be captured, or there is not enough memory.
    """
    with torch.cuda.device(device):
        present, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(present)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                work()
        present.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, of a ROS node for example, may go on using the GPU.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            result = work()
    return graph, result
