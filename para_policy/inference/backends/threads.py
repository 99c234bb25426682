"""Numbers of CPU threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
