"""What only a GPU can show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from para_policy.errors import InputError
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.precision import TOLERANCE
from tests.inference.bodies import Plain, Unet, make

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SIZES = tuple(Size(rows) for rows in (1, 4, 6))


def engine(backend: str, precision: str = "float32", kind: type = Unet) -> Engine:
    config = EngineConfig(backend, precision, SIZES)  # type: ignore[arg-type]
    return Engine(make(kind).cuda(), config)


def inputs_of(engine: Engine, rows: int, seed: int = 0) -> tuple[Tensor, ...]:
    return tuple(v.cuda() for v in engine.body.inputs(rows, seed))


def reference(engine: Engine, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.backends.cudnn.flags(allow_tf32=False), torch.no_grad():
        return engine.body(*inputs)


def error(engine: Engine, inputs: tuple[Tensor, ...]) -> float:
    expected = reference(engine, inputs)
    return float((engine(*inputs) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("backend", ["eager", "compile", "cuda-graph"])
def test_outputs_are_those_of_the_network(backend: str, precision: str) -> None:
    runs = engine(backend, precision)
    for rows in (1, 2, 4, 5, 6, 7, 15, 1):
        inputs = inputs_of(runs, rows, seed=rows)
        assert error(runs, inputs) <= TOLERANCE[runs.precision]
    assert (runs.backend, runs.precision) == (backend, precision)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_rounding_to_tf32_is_a_choice(precision: str) -> None:
    major, _ = torch.cuda.get_device_capability()
    if major < 8:
        pytest.skip("needs tensor cores with TF32")
    runs = Engine(Wide().cuda(), EngineConfig("eager", precision))  # type: ignore[arg-type]
    inputs = (torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).cuda(),)
    exact = (inputs[0].double() @ runs.body.weight.double()).float()
    rounded = float((runs(*inputs) - exact).abs().max() / exact.abs().max()) > 1e-5
    assert rounded == (precision == "tf32")


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(512, 512, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_auto_takes_the_graph() -> None:
    runs = engine("auto")
    assert error(runs, inputs_of(runs, 3)) <= TOLERANCE["float32"]
    assert runs.backend == "cuda-graph"
    assert runs.memory_bytes > 0


def test_outputs_are_not_overwritten() -> None:
    runs = engine("cuda-graph")
    first = runs(*inputs_of(runs, 4, seed=1))
    kept = first.clone()
    for rows in (1, 4, 6):
        runs(*inputs_of(runs, rows, seed=2))
    assert torch.equal(first, kept)


def test_a_call_is_captured_by_a_graph_around_it() -> None:
    runs = engine("cuda-graph")
    runs.warm_up(*inputs_of(runs, 1))
    static = tuple(v.clone() for v in inputs_of(runs, 4, seed=1))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = runs(*static) + 1
    for seed in (2, 3):
        new = inputs_of(runs, 4, seed=seed)
        for buffer, value in zip(static, new, strict=True):
            buffer.copy_(value)
        graph.replay()
        expected = reference(runs, new)
        assert float((output - 1 - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_a_capture_without_preparation_is_refused() -> None:
    runs = engine("cuda-graph", kind=Plain)
    runs(*inputs_of(runs, 1))
    inputs = inputs_of(runs, 6)
    torch.cuda.synchronize()

    def capture() -> None:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            inputs[0].add(1)  # an empty graph cannot be ended
            runs(*inputs)

    with pytest.raises(InputError, match="warm_up"):
        capture()


def test_ten_thousand_calls_take_no_memory() -> None:
    runs = engine("cuda-graph", kind=Plain)
    runs.warm_up(*inputs_of(runs, 1))
    inputs = inputs_of(runs, 5)
    runs(*inputs)
    before = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    for _ in range(10_000):
        runs(*inputs)
    assert (torch.cuda.memory_reserved(), torch.cuda.memory_allocated()) == before
