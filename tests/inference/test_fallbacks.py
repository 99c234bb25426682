""" "auto" never fails, and says once why it is not faster; what was asked for by name does."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference import Engine, EngineConfig, Size
from tests.inference.bodies import Plain, make
from tests.inference.fakes import Fake, failing, from_rows, use

SIZES = tuple(Size(rows) for rows in (1, 4, 8))


def engine(backend: str = "auto", **options: Any) -> Engine:
    return Engine(make(Plain), EngineConfig(backend, sizes=SIZES, **options))


def right(engine: Engine, rows: int) -> bool:
    inputs = engine.body.inputs(rows, seed=rows)
    return torch.allclose(engine(*inputs), engine.body(*inputs), atol=1e-5)


@contextmanager
def one_warning(*texts: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 1, messages
    assert all(text in messages[0] for text in texts), messages


def test_auto_does_without_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    runs = engine()
    with one_warning("'eager' is used", "openvino (it needs the package", "pip install"):
        assert right(runs, 3)
        assert right(runs, 9)
        runs.warm_up(*runs.body.inputs(1))
    assert runs.backend == "eager"
    assert len(runs.passed_over) == 1


@pytest.mark.parametrize(
    ("backend", "package"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime")]
)
def test_a_named_backend_without_its_package_is_an_error(
    monkeypatch: pytest.MonkeyPatch, backend: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    runs = engine(backend)
    for _ in range(2):  # the second call is refused like the first
        with pytest.raises(InputError, match=rf"'{backend}' cannot be used.*pip install.*'auto'"):
            right(runs, 3)


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("cuda-graph", "float32", "needs an NVIDIA GPU"),
        ("eager", "float16", "needs an NVIDIA GPU"),
        ("compile", "tf32", "needs an NVIDIA GPU"),
        ("openvino", "float16", "needs an NVIDIA GPU"),
        ("onnxruntime", "bfloat16", "computes in float32"),
    ],
)
def test_what_a_cpu_does_not_have_is_an_error_by_name(
    backend: str, precision: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        right(engine(backend, precision=precision), 1)


def test_auto_ends_in_float32() -> None:
    runs = engine(precision="float16")
    with one_warning("'eager' is used", "openvino, float16", "eager, float16"):
        assert right(runs, 3)
    assert (runs.backend, runs.precision, runs.label) == ("eager", "float32", "eager")


def wrong(value: Tensor) -> Tensor:
    return value + 0.01 * value.abs().max()


def one_wrong_row(value: Tensor) -> Tensor:
    return torch.cat([value[:-1], value[:1]])


FAILURES = {
    "compiler missing": (
        {"prepare": failing(RuntimeError("no g++\npages"))},
        "RuntimeError: no g++)",
    ),
    "any exception": ({"prepare": failing(KeyError("x"))}, "KeyError"),
    "import fails": ({"check": failing(OSError("libfoo.so"))}, "OSError: libfoo.so"),
    "first run fails": ({"output": failing(ValueError("layout"))}, "ValueError: layout"),
    "wrong numbers": ({"output": wrong}, "differ by"),
    "a wrong row": ({"output": one_wrong_row}, "differ by"),
    "NaN": ({"output": lambda value: value / 0 * 0}, "differ by nan"),
    "wrong shape": ({"output": lambda value: value[:, :1]}, "instead of"),
    "never enough memory": ({"prepare": failing(MemoryError("full"))}, "full"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_is_passed_over(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    options, text = FAILURES[failure]
    use(monkeypatch, Fake(**options), Fake("compile"))
    runs = engine()
    with one_warning("'compile' is used", "openvino (", text):
        assert right(runs, 8)
        assert right(runs, 20)
    assert runs.backend == "compile"


@pytest.mark.parametrize("failure", FAILURES)
def test_any_failure_is_an_error_by_name(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    options, text = FAILURES[failure]
    use(monkeypatch, Fake(**options))
    with pytest.raises(InputError, match="engine 'openvino' cannot be used") as caught:
        right(engine("openvino"), 8)
    assert text.rstrip(")") in str(caught.value)


def test_all_reasons_are_in_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    use(
        monkeypatch,
        Fake("cuda-graph", prepare=failing(RuntimeError("first"))),
        Fake("compile", output=failing(RuntimeError("second"))),
    )
    runs = engine()
    with one_warning("cuda-graph (RuntimeError: first)", "compile (RuntimeError: second)"):
        assert right(runs, 2)
    assert runs.backend == "eager"


def test_a_constant_that_was_compiled_in_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[Tensor] = []

    def frozen(value: Tensor) -> Tensor:
        first.append(value.clone())
        return first[0]

    class Frozen(Fake):
        def load(self, body: nn.Module, precision: Any) -> Any:
            prepare = super().load(body, precision)

            def prepare_and_run(buffers: Any, size: Size) -> Any:
                runner = prepare(buffers, size)
                runner()
                return runner

            return prepare_and_run

    use(monkeypatch, Frozen(output=frozen))
    runs = engine()
    with one_warning("differ by"):
        assert right(runs, 2)


def test_warming_up_prepares_all_sizes_of_what_is_used_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = Fake(prepare=from_rows(8, RuntimeError("too large")))
    good = Fake("compile")
    use(monkeypatch, bad, good)
    runs = engine()
    with one_warning("too large"):
        runs.warm_up(*runs.body.inputs(1))
    assert sorted(good.prepared) == [1, 4, 8]
    for rows in (1, 3, 8, 12):
        assert right(runs, rows)
    assert sorted(good.prepared) == [1, 4, 8]


def test_mistakes_of_the_caller_are_no_failures_of_a_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, Fake())
    runs = engine()
    x, shift = runs.body.inputs(2)
    with pytest.raises(RuntimeError, match="size"):
        runs(x, shift[:, :3])
    assert right(runs, 2)
    assert runs.backend == "openvino"
    assert runs.passed_over == []


def test_not_a_number_is_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken first observation must not decide which backend is used from then on."""
    use(monkeypatch, Fake())
    runs = engine()
    x, shift = runs.body.inputs(2)
    output = runs(torch.full_like(x, torch.nan), shift)
    assert output.isnan().all()
    assert right(runs, 2)
    assert runs.backend == "openvino"


def test_not_a_number_does_not_hide_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Fake(output=wrong))
    runs = engine()
    x, shift = runs.body.inputs(2)
    with one_warning("differ by"):
        runs(torch.full_like(x, torch.nan), shift)


def test_global_random_numbers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Fake())
    runs = engine()
    state = torch.get_rng_state()
    assert right(runs, 4)
    assert torch.equal(torch.get_rng_state(), state)
