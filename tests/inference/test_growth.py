"""Nothing is kept from call to call."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from para_policy.inference import Engine, EngineConfig, Size
from tests.inference.bodies import Plain, make

CALLS, MIB = 10_000, 2**20


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "openvino", "onnxruntime"])
def test_ten_thousand_calls_take_no_memory(backend: str) -> None:
    if backend != "eager":
        pytest.importorskip(backend)
    engine = Engine(make(Plain), EngineConfig(backend, sizes=(Size(1), Size(8), Size(16))))
    # 16 KiB of inputs and outputs at each call would be 100 MiB in the end.
    inputs = [engine.body.inputs(rows) for rows in (1, 5, 16, 20)]

    def run(calls: int) -> None:
        for i in range(calls):
            engine(*inputs[i % len(inputs)])

    run(CALLS // 10)
    assert any(growth(run, CALLS) < 8 * MIB for _ in range(4))


def growth(run: Callable[[int], None], times: int) -> int:
    """Bytes that a run adds.

    A leak adds them in every run; the heap of a process in which many tests ran grows once in a while.
    """
    before = resident_bytes()
    run(times)
    return resident_bytes() - before


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
