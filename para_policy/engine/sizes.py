"""Which batch sizes pay: measured, not guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from para_policy.engine.config import EngineConfig, Size
from para_policy.engine.engine import Engine

_SLACK = 1.1


def choose_sizes(seconds: Mapping[Size, float]) -> tuple[Size, ...]:
    """The fastest thread count for each number of rows, without rows that do not pay.

    A size is left out where the next larger one that is kept costs at most 10 % more: so any call
    costs at most 10 % more than with all sizes. The largest one is always kept.

    Args:
        seconds: of a call, for each candidate; at least one.
    """
    fastest: dict[int, Size] = {}
    for size in sorted(seconds, key=lambda size: seconds[size], reverse=True):
        fastest[size.rows] = size
    kept: list[Size] = []
    for rows in sorted(fastest, reverse=True):
        size = fastest[rows]
        if not kept or seconds[kept[-1]] > _SLACK * seconds[size]:
            kept.append(size)
    return tuple(reversed(kept))


def measure_sizes(
    body: nn.Module,
    example: Sequence[Tensor],
    config: EngineConfig,
    threads: Sequence[int],
    repeats: int = 7,
) -> tuple[tuple[Size, ...], dict[Size, float]]:
    """Time calls of every size of `config` with every number of threads.

    Args:
        body, config: of the engine; numbers of threads in `config.sizes` are not used, and sizes
            that do not fit into memory are no candidates.
        example: inputs, at least one row.
        threads: of the CPU, to try; on a GPU they make no difference, and None is measured.
        repeats: calls for each candidate; the median counts.

    Returns:
        The sizes to prepare, see `choose_sizes`, and the seconds of a call for every candidate.
    """
    on_cpu = example[0].device.type == "cpu"
    seconds: dict[Size, float] = {}
    for count in threads if on_cpu else (None,):
        sizes = tuple(Size(size.rows, count) for size in config.sizes)
        engine = Engine(body, replace(config, sizes=sizes))
        engine(*(v[:1] for v in example))
        for size in engine.sizes:
            inputs = [v[torch.arange(size.rows, device=v.device) % len(v)] for v in example]
            engine(*inputs)
            if size in engine.sizes:  # otherwise it did not fit into memory
                seconds[size] = statistics.median(_seconds(engine, inputs) for _ in range(repeats))
        # What "auto" has settled for need not be found out again.
        config = replace(
            config, backend=engine.backend or config.backend, precision=engine.precision
        )
    return choose_sizes(seconds), seconds


def _seconds(engine: Engine, inputs: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    engine(*inputs).cpu()  # waits for the GPU
    return time.perf_counter() - start
