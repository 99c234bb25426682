"""Arithmetic of a network, and what can be told from its noise."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from para_policy import Process
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.failures import UnavailableError
from para_policy.inference.precision import check_output, in_precision, tensor_cores
from para_policy.inference.runtime import Runtime, Shapes
from tests.inference.bodies import Plain, Unet, make
from tests.inference.fakes import Fake, use
from tests.problems import scheduler

SIZES = (Size(2), Size(5))


def engine(body: nn.Module, precision: str = "float32", backend: str = "eager") -> Engine:
    return Engine(body, EngineConfig(backend, precision, SIZES))  # type: ignore[arg-type]


def test_weights_given_stay_as_they_are() -> None:
    body = make(Plain)
    cast = in_precision(body, "bfloat16")
    assert {p.dtype for p in cast.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in body.parameters()} == {torch.float32}
    assert in_precision(body, "float32") is in_precision(body, "tf32") is body


def test_timesteps_are_not_rounded() -> None:
    class Takes(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.seen = x.dtype, t.dtype, t.clone()
            return x

    body = in_precision(Takes(), "bfloat16")
    t = torch.tensor([730.5, 1.0])
    assert body(torch.ones(2, 3), t).dtype == torch.float32
    dtypes_and_t = body.body.seen
    assert dtypes_and_t[:2] == (torch.bfloat16, torch.float32)
    assert torch.equal(dtypes_and_t[2], t)


def test_tensor_cores_are_a_matter_of_the_block() -> None:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    with tensor_cores("tf32"):
        assert (matmul.allow_tf32, convolution.allow_tf32) == (True, True)
        with tensor_cores("float32"):
            assert (matmul.allow_tf32, convolution.allow_tf32) == (False, False)
        assert (matmul.allow_tf32, convolution.allow_tf32) == (True, True)
    assert (matmul.allow_tf32, convolution.allow_tf32) == before


def switches() -> dict[str, object]:
    """What torch says of its switches, where it says anything."""
    backends: Any = torch.backends
    parts = {"matmul": backends.cuda.matmul, "cudnn": backends.cudnn, "all": backends}
    parts |= {"conv": backends.cudnn.conv, "rnn": backends.cudnn.rnn, "cpu": backends.mkldnn.matmul}
    found: dict[str, object] = {}
    for name, part in parts.items():
        for key in ("allow_tf32", "fp32_precision"):
            with contextlib.suppress(RuntimeError, AttributeError):
                found[f"{name}.{key}"] = getattr(part, key)
    with contextlib.suppress(RuntimeError):
        found["level"] = torch.get_float32_matmul_precision()
    return found


HOSTS = """
pass
torch.backends.cuda.matmul.fp32_precision = 'tf32'
torch.backends.cudnn.conv.fp32_precision = 'ieee'
torch.backends.fp32_precision = 'tf32'
torch.backends.cudnn.allow_tf32 = False
torch.set_float32_matmul_precision('medium')
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cuda.matmul.fp32_precision = 'ieee'
"""
"""What a program may do, one after the other: the old and the new switches come to disagree."""


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="needs torch 2.9"
)
def test_switches_of_the_host_program_hold_again_after_the_block() -> None:
    """In a process of its own, which keeps them."""
    code = f"""
import torch
from para_policy.inference.precision import tensor_cores
from tests.inference.test_precision import switches
for host in {HOSTS.split(chr(10))[1:-1]}:
    exec(host)
    before = switches()
    for precision, value in (("tf32", "tf32"), ("float32", "ieee"), ("bfloat16", "ieee")):
        with tensor_cores(precision):
            found = switches()
            for part in ("matmul", "conv", "rnn"):
                assert found[part + ".fp32_precision"] == value, (host, precision, found)
            for part in ("matmul", "cudnn"):  # which can be read
                assert found[part + ".allow_tf32"] == (value == "tf32"), (host, precision, found)
        assert switches() == before, (host, precision, before, switches())
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(("error", "precision"), [(3.6e-4, "float32"), (0.9, "bfloat16")])
def test_the_check_is_as_strict_as_the_precision(error: float, precision: Any) -> None:
    """A share of the largest output; one that is wrong is enough."""
    reference, wrong = torch.tensor([[1.0, -4.0]]), torch.tensor([[error, 0.0]])
    check_output(reference + wrong, reference, precision)
    with pytest.raises(UnavailableError, match="differ by"):
        check_output(reference + 1.2 * wrong, reference, precision)


def test_noise_grows_with_the_roughness_of_the_arithmetic() -> None:
    body = make(Unet)
    inputs = body.inputs(8)
    fine, coarse = (engine(body, p).output_noise(*inputs) for p in ("float32", "bfloat16"))
    scale = float(body(*inputs).abs().max())
    assert 1e-9 * scale < fine < 1e-5 * scale
    assert 1e-4 * scale < coarse < 1e-1 * scale


def test_noise_covers_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for five rows that differ by a millionth from those for two."""
    use(monkeypatch, Fake(output=lambda value: value + 1e-5 * (len(value) == 5)))
    body = make(Plain)
    assert engine(body, backend="openvino").output_noise(*body.inputs(2)) >= 0.9e-5
    assert engine(body).output_noise(*body.inputs(2)) < 5e-6


def test_noise_covers_states_that_hardly_differ() -> None:
    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 * x

    noise = engine(Steep()).output_noise(torch.ones(3, 2, 2))
    assert 1e-5 < noise < 1e-3


def test_the_floor_of_residuals_is_what_steps_make_of_the_noise() -> None:
    """Without clipping they are linear in the output; the one that amplifies it most counts."""

    class Copies(nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return x

    runtime = Runtime(Copies(), Shapes(4, 2, 1, 20), torch.device("cpu"), EngineConfig())
    process = Process.from_scheduler(scheduler("ddpm", 20, clip_sample=False), 8)
    runtime.__dict__["_output_noise"] = 1e-2
    amplified = ((process.A + process.R) * process.x0_from_output).abs()
    expected = 1e-2 * float(amplified.max())
    assert runtime.noise_floor(process) == pytest.approx(expected, rel=1e-2)
