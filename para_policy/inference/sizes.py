"""Batch sizes that pay: measured, not guessed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from para_policy.inference.config import EngineConfig, Size
from para_policy.inference.engine import Engine

_SLACK = 1.1
_TURNS = 3


def choose_sizes(seconds: Mapping[Size, float]) -> tuple[Size, ...]:
    """A thread count for each number of rows, without rows that do not pay.

    More threads are taken where they save more than 10 %: the rest of the robot needs cores, too. A
    size is left out where the next larger one that is kept costs at most 10 % more. The largest one
    is always kept, and the smallest, which sequential sampling of one robot needs all the time.

    Args:
        seconds: of a call, for each candidate; at least one.
    """
    chosen: dict[int, Size] = {}
    for size in sorted(seconds, key=lambda size: size.threads or 0):
        fewer = chosen.get(size.rows)
        if fewer is None or seconds[fewer] > _SLACK * seconds[size]:
            chosen[size.rows] = size
    kept: list[Size] = []
    for rows in sorted(chosen, reverse=True):
        size = chosen[rows]
        pays = not kept or seconds[kept[-1]] > _SLACK * seconds[size]
        if pays or rows == min(chosen):
            kept.append(size)
    return tuple(reversed(kept))


def measure_sizes(
    body: nn.Module,
    example: Sequence[Tensor],
    config: EngineConfig,
    threads: Sequence[int],
    repeats: int = 5,
) -> tuple[tuple[Size, ...], dict[Size, float]]:
    """Time calls of every size of `config` with every number of threads.

    Args:
        body, config: of the engine; numbers of threads in `config.sizes` are not used, and sizes
            that do not fit into memory are no candidates.
        example: inputs, at least one row.
        threads: of the CPU, to try; on a GPU they make no difference, and None is measured.
        repeats: calls in each of three turns of a candidate, after one that fills the caches; the
            median of all counts. A disturbance of the machine that lasts meets all candidates alike.

    Returns:
        The sizes to prepare, see `choose_sizes`, and the seconds of a call for every candidate.
    """
    on_cpu = example[0].device.type == "cpu"
    candidates: dict[Size, tuple[Engine, list[Tensor]]] = {}
    for count in threads if on_cpu else (None,):
        sizes = tuple(Size(size.rows, count) for size in config.sizes)
        engine = Engine(body, replace(config, sizes=sizes))
        engine.warm_up(*example)
        for size in engine.sizes:
            inputs = [v[torch.arange(size.rows, device=v.device) % len(v)] for v in example]
            candidates[size] = engine, inputs
        # What "auto" has settled for need not be found out again.
        config = replace(
            config, backend=engine.backend or config.backend, precision=engine.precision
        )
    seconds: dict[Size, list[float]] = {size: [] for size in candidates}
    for _ in range(_TURNS):
        for size, (engine, inputs) in candidates.items():
            engine(*inputs)
            seconds[size] += [_seconds(engine, inputs) for _ in range(repeats)]
    medians = {size: statistics.median(kept) for size, kept in seconds.items()}
    return choose_sizes(medians), medians


def _seconds(engine: Engine, inputs: Sequence[Tensor]) -> float:
    start = time.perf_counter()
    engine(*inputs).cpu()  # waits for the GPU
    return time.perf_counter() - start
