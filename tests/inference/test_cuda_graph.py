"""The logic around CUDA graphs; the graphs themselves are emulated (see test_gpu.py for real ones)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.backends import cuda_graph
from para_policy.inference.backends.base import Runner
from para_policy.inference.backends.cuda_graph import CudaGraph
from tests.inference.bodies import Plain, make


class Graph:
    """Writes to the tensor that was returned at its capture, as a CUDA graph does."""

    replays = 0

    def __init__(self, function: Runner) -> None:
        self.function, self.output = function, function().clone()

    def replay(self) -> None:
        Graph.replays += 1
        self.output.copy_(self.function())


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []

    def captured(function: Runner, device: torch.device, pool: object) -> tuple[Graph, Tensor]:
        seen.append(pool)
        graph = Graph(function)
        return graph, graph.output

    monkeypatch.setattr(Graph, "replays", 0)
    monkeypatch.setattr(cuda_graph, "capture", captured)
    monkeypatch.setattr(CudaGraph, "check", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    capture(monkeypatch, False)
    compiler(monkeypatch, lambda body, buffers, size: lambda: body(*buffers))
    return seen


def capture(monkeypatch: pytest.MonkeyPatch, going_on: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: going_on)


def compiler(monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Runner]) -> None:
    monkeypatch.setattr(cuda_graph, "compiled", compiled)


def engine() -> Engine:
    return Engine(make(Plain), EngineConfig("cuda-graph", sizes=(Size(1), Size(4))))


def right(engine: Engine, rows: int) -> bool:
    inputs = engine.body.inputs(rows, seed=rows)
    return torch.allclose(engine(*inputs), engine.body(*inputs), atol=1e-6)


def test_graphs_of_all_sizes_share_a_pool(pools: list[object]) -> None:
    runs = engine()
    runs.warm_up(*runs.body.inputs(1))
    assert len(pools) == 2
    assert pools[0] is pools[1]
    for rows in (1, 2, 4, 11, 1):
        assert right(runs, rows)


def test_inside_a_capture_the_kernels_are_captured(
    pools: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = engine()
    runs.warm_up(*runs.body.inputs(1))
    before = Graph.replays
    assert right(runs, 3)
    assert Graph.replays == before + 1
    capture(monkeypatch, True)
    assert right(runs, 2)
    assert Graph.replays == before + 1


def test_without_a_compiler_the_plain_network_is_captured(
    pools: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*_: object) -> Runner:
        calls.append(1)
        raise RuntimeError("Triton is missing\npages")

    compiler(monkeypatch, broken)
    runs = engine()
    runs.warm_up(*runs.body.inputs(1))
    assert right(runs, 3)
    assert len(calls) == 1  # not tried for each size anew
    backend = runs._in_use[0]  # type: ignore[index]
    assert backend.not_compiled == "RuntimeError: Triton is missing"  # type: ignore[attr-defined]


def test_memory_that_ends_in_the_compiler_drops_the_size(
    pools: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(body: torch.nn.Module, buffers: list[Tensor], size: Size) -> Runner:
        if size.rows > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return lambda: body(*buffers)

    compiler(monkeypatch, compiled)
    runs = engine()
    with pytest.warns(UserWarning, match="4 rows at once"):
        assert right(runs, 4)
    assert [size.rows for size in runs.sizes] == [1]
