"""An engine computes what its network does, whatever it runs on and however many rows come."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.device import expected_engine
from para_policy.inference.precision import TOLERANCE
from para_policy.networks.transformer import TransformerForDiffusion
from tests.inference.bodies import Plain, Unet, make

SIZES = tuple(Size(rows) for rows in (1, 4, 6))
# To compile a U-Net for all three takes a minute; one, too, has rows below, at and above it.
ONE_SIZE = (Size(4),)
# Below, at and above each size; the last ones are split.
ROWS = (1, 2, 4, 5, 6, 7, 12, 15)

CASES = [
    ("eager", "float32", Plain),
    ("eager", "bfloat16", Plain),
    ("eager", "bfloat16", Unet),
    pytest.param(("compile", "float32", Plain), marks=pytest.mark.slow),
    pytest.param(("compile", "bfloat16", Plain), marks=pytest.mark.slow),
    pytest.param(("compile", "float32", Unet, ONE_SIZE), marks=pytest.mark.slow),
    ("openvino", "float32", Plain),
    ("openvino", "bfloat16", Plain),
    ("openvino", "float32", Unet),
    ("openvino", "bfloat16", Unet),
    ("onnxruntime", "float32", Plain),
    pytest.param(("onnxruntime", "float32", Unet, ONE_SIZE), marks=pytest.mark.slow),
]
PACKAGES = {"openvino": ["openvino"], "onnxruntime": ["onnxruntime", "onnxscript"]}


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{c[1]}-{c[2].__name__}")
def engine(request: pytest.FixtureRequest) -> Engine:
    backend, precision, kind, *sizes = request.param
    for package in PACKAGES.get(backend, []):
        pytest.importorskip(package)
    try:
        expected_engine(EngineConfig(backend, precision), torch.device("cpu"))
    except InputError as error:
        if "no bfloat16 arithmetic" in str(error):
            pytest.skip(str(error))
    return Engine(make(kind), EngineConfig(backend, precision, *(sizes or [SIZES])))


def error(engine: Engine, output: Tensor, inputs: tuple[Tensor, ...]) -> float:
    """Largest difference from PyTorch in float32, relative to the largest output."""
    with torch.no_grad():
        expected = engine.body(*inputs)
    return float((output - expected).abs().max() / expected.abs().max())


def test_outputs_are_those_of_the_network_for_any_number_of_rows(engine: Engine) -> None:
    for rows in ROWS:
        inputs = engine.body.inputs(rows, seed=rows)
        output = engine(*inputs)
        assert output.dtype == torch.float32
        assert error(engine, output, inputs) <= TOLERANCE[engine.precision]
    assert engine.backend == engine.config.backend
    assert engine.precision == engine.config.precision
    assert engine.passed_over == []


def test_an_engine_that_inference_mode_has_called_first_runs_outside_of_it(engine: Engine) -> None:
    """LeRobot's programs act in inference mode."""
    twin, inputs = copy.deepcopy(engine), engine.body.inputs(2, seed=0)
    for within in (True, False, True):
        with torch.inference_mode(within):
            output = twin(*(value.clone() for value in inputs))
        assert error(engine, output, inputs) <= TOLERANCE[engine.precision]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))]
)
def test_a_copy_of_an_engine_in_use_prepares_its_own_sizes(
    engine: Engine, copied: Callable[[Engine], Engine]
) -> None:
    """For a fleet of processes, or an experiment with other weights."""
    inputs = engine.body.inputs(2, seed=0)
    expected = engine(*inputs)
    twin = copied(engine)
    assert (twin.config, twin.memory_bytes, twin.backend) == (engine.config, 0, None)
    with torch.no_grad():
        for weights in twin.body.parameters():
            weights.add_(1.0)
    assert error(twin, twin(*inputs), inputs) <= TOLERANCE[engine.precision]
    assert torch.equal(engine(*inputs), expected)


def test_precision_is_what_was_asked_for(engine: Engine) -> None:
    inputs = engine.body.inputs(6)
    rounded = error(engine, engine(*inputs), inputs) > 1e-4
    assert rounded == (engine.precision == "bfloat16")


def test_every_call_sees_its_inputs_and_leaves_earlier_outputs_alone(engine: Engine) -> None:
    first, second = engine.body.inputs(4, seed=1), engine.body.inputs(4, seed=2)
    output = engine(*first)
    kept = output.clone()
    # Only one of the inputs changes, then the other.
    for inputs in ((second[0], first[1]), (second[0], second[1]), first):
        assert error(engine, engine(*inputs), inputs) <= TOLERANCE[engine.precision]
    assert torch.equal(output, kept)


def test_calls_of_two_threads_do_not_see_each_other(engine: Engine) -> None:
    given = [engine.body.inputs(3, seed) for seed in (1, 2)]
    alone = [engine(*inputs) for inputs in given]
    wrong = [0, 0]

    def call(thread: int) -> None:
        for _ in range(200):
            wrong[thread] += not torch.equal(engine(*given[thread]), alone[thread])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # s; a thread is left between any two steps of a call
    try:
        with ThreadPoolExecutor() as threads:
            list(threads.map(call, range(2)))
    finally:
        sys.setswitchinterval(before)
    assert wrong == [0, 0]


def test_rows_beyond_are_not_seen(engine: Engine) -> None:
    """What an earlier, larger call has left in the buffers does not matter."""
    inputs = engine.body.inputs(3)
    expected = engine(*inputs)
    engine(*engine.body.inputs(4, seed=5))
    assert torch.equal(engine(*inputs), expected)


def test_inputs_may_be_views(engine: Engine) -> None:
    x, shift = engine.body.inputs(8)
    inputs = x[::2], shift[:1].expand(4, -1)
    assert error(engine, engine(*inputs), inputs) <= TOLERANCE[engine.precision]


def test_nothing_is_known_before_the_first_call() -> None:
    engine = Engine(make(Plain), EngineConfig("auto", "bfloat16", SIZES))
    assert engine.backend is None
    assert engine.label == "auto, bfloat16"
    assert engine.memory_bytes == 0
    engine = Engine(make(Plain), EngineConfig("eager", sizes=SIZES))
    engine(*engine.body.inputs(1))
    assert engine.backend == engine.label == "eager"


def test_eager_is_bitwise_the_network() -> None:
    engine = Engine(make(Unet), EngineConfig(sizes=SIZES))
    for rows in ROWS:
        inputs = engine.body.inputs(rows)
        assert torch.equal(engine(*inputs), engine.body(*inputs))


class Timed(nn.Module):
    """Reads a number per row, whole or not."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x * torch.sin(t)[:, None, None]

    def inputs(self, rows: int) -> tuple[Tensor, Tensor]:
        return torch.ones(rows, 2, 2), torch.arange(rows)


@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_kinds_of_inputs_do_not_share_buffers(backend: str) -> None:
    if backend != "eager":
        pytest.importorskip(backend)
    engine = Engine(Timed(), EngineConfig(backend, sizes=SIZES))
    x, t = engine.body.inputs(4)
    between = t + 0.5
    for inputs in ((x, t), (x, between), (x[:, :1], t), (x, t)):
        assert error(engine, engine(*inputs), inputs) <= 1e-6


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = TransformerForDiffusion(2, 8, 2, 3, n_layer=1, n_head=2, n_emb=8)

    def forward(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        return self.network.denoise(x, t, observed)

    def inputs(self, rows: int) -> tuple[Tensor, ...]:
        return torch.randn(rows, 8, 2), torch.arange(rows) % 5, torch.randn(rows, 2, 8)


def test_a_transformer_traced_at_one_size_runs_at_all() -> None:
    pytest.importorskip("openvino")
    engine = Engine(make(Transformer), EngineConfig("openvino", sizes=SIZES))
    for rows in (1, 3, 6, 13):
        inputs = engine.body.inputs(rows)
        assert error(engine, engine(*inputs), inputs) <= 1e-5


def test_nothing_is_reported_to_vendors(tmp_path: Path) -> None:
    """Where OpenVINO may report, it first leaves a number of this user in the home directory."""
    pytest.importorskip("openvino")
    code = (
        "import torch; from para_policy.inference.backends.openvino import OpenVino;"
        "OpenVino().check(torch.device('cpu'), 'float32')"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import gc, signal, threading
from para_policy.inference import Engine, EngineConfig
from tests.inference.bodies import Plain, make
body = make(Plain)
engines = [Engine(body, EngineConfig("openvino"))]
engines[0](*body.inputs(1))
other = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
other.start()
other.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_finds_its_stack_after_the_network_was_freed_by_another_thread() -> None:
    """As by the garbage collector. In a process of its own: without, that is its end."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SIGNALLED]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_no_rows_are_an_error() -> None:
    engine = Engine(make(Plain), EngineConfig())
    with pytest.raises(InputError, match="no rows"):
        engine(*engine.body.inputs(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "'tensorrt'; expected one of auto, eager"),
        ({"precision": "int8"}, "'int8'; expected one of float32"),
        ({"sizes": ()}, "at least one"),
        ({"sizes": (Size(4), Size(1))}, "increasing"),
        ({"memory_limit_mib": 0}, "at least 1"),
    ],
)
def test_unknown_names_and_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineConfig(**options)


@pytest.mark.parametrize("size", [(0, None), (1, 0)])
def test_sizes_are_positive(size: tuple[int, int | None]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Size(*size)
