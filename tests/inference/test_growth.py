"""Nothing is kept from call to call."""

from __future__ import annotations

import gc
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from para_policy.inference import Engine, EngineConfig, Size
from tests.inference.bodies import Plain, make

CALLS = 3_000


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "openvino", "onnxruntime"])
def test_thousands_of_calls_take_no_memory(backend: str) -> None:
    if backend != "eager":
        pytest.importorskip(backend)
    assert in_fresh_process(growth_of_calls, backend) < 800 * CALLS


def growth_of_calls(backend: str) -> int:
    """Bytes that `CALLS` add, after a tenth of them."""
    engine = Engine(make(Plain), EngineConfig(backend, sizes=(Size(1), Size(8), Size(16))))
    # To keep the inputs and outputs of a call would be up to 16 KiB.
    inputs = [engine.body.inputs(rows) for rows in (1, 5, 16, 20)]

    def run(calls: int) -> int:
        for i in range(calls):
            engine(*inputs[i % len(inputs)])
        return resident_bytes()

    before = run(CALLS // 10)
    return run(CALLS) - before


def in_fresh_process(measure: Callable[..., int], *args: object) -> int:
    """What is measured where nothing ran before: the heap of a test worker grows on its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
