"""NaN that is born inside a network leaves every engine as NaN, in the rows where it was born."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from para_policy import samplers
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.errors import InputError, NonFiniteError, ParaPolicyError
from para_policy.inference import Engine, EngineConfig, Size
from para_policy.inference.backends.openvino_nan import reveal
from para_policy.inference.backends.openvino_package import openvino_package
from para_policy.inference.failures import UnavailableError
from para_policy.inference.precision import check_output
from tests import problems
from tests.inference.bodies import Plain, Unet, make

ROWS, WIDTH = 4, 8
LOSSY: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "clamp": lambda x: x.clamp(-1, 1),
    "hardswish": F.hardswish,
    "maximum": lambda x: torch.maximum(x, torch.zeros(())),
    "minimum": lambda x: torch.minimum(x, torch.zeros(())),
    "amax": lambda x: x.amax(dim=-1, keepdim=True).expand_as(x),
    "max_pool": lambda x: F.max_pool1d(x, 3, 1, 1),
    "exp": lambda x: 1 / (1 + (-x).exp()),
    "softmax": lambda x: x.softmax(dim=-1),
    "mish": F.mish,
    "gelu": F.gelu,
}


class Overflowing(nn.Module):
    """Five linear layers whose weights are finite, and so are their outputs for inputs about 1.

    For inputs about 1e15 the fourth layer overflows to infinities of both signs, which the fifth adds.
    """

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(1e6 * torch.randn(WIDTH, WIDTH, generator=generator))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for _ in range(5):
            h = h @ self.weight
        return x.clamp(-1, 1) + self.last(h)


def states() -> Tensor:
    """The third row overflows."""
    x = torch.randn(ROWS, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    return x * torch.tensor([1, 1, 1e15, 1])[:, None, None]


@pytest.mark.parametrize("function", LOSSY)
def test_openvino_shows_what_it_would_hide(function: str) -> None:
    body = Overflowing(LOSSY[function]).eval()
    lost = body(states()).isnan().flatten(1).any(dim=1)
    assert lost.tolist() == [False, False, True, False]
    engine = Engine(body, EngineConfig("openvino", sizes=(Size(ROWS),)))
    # Prepared with rows that are finite: nothing can be found out then.
    assert engine(states()[[0, 1, 3]]).isfinite().all()
    assert torch.equal(engine(states()).isnan().flatten(1).any(dim=1), lost)


def test_a_value_of_another_layout_spoils_all_rows() -> None:
    """Which row it belongs to is not known."""

    def last(h: Tensor) -> Tensor:
        return F.relu(h.transpose(0, 1)).transpose(0, 1)

    engine = Engine(Overflowing(last).eval(), EngineConfig("openvino", sizes=(Size(ROWS),)))
    assert engine(states()[[0, 1, 3]]).isfinite().all()
    assert engine(states()).isnan().flatten(1).any(dim=1).all()
    # But not those of later calls, whose rows are fewer.
    assert engine(states()[[0, 1]]).isfinite().all()


def test_networks_that_hide_nothing_stay_as_they_are() -> None:
    openvino, body = openvino_package(), make(Plain)
    inputs = body.inputs(ROWS)
    model = openvino.convert_model(body, example_input=inputs)
    model.reshape({i: list(value.shape) for i, value in enumerate(inputs)})
    assert reveal(openvino, model, ROWS, "f32") is model


def overflowing_unet(layer: str) -> nn.Module:
    body = make(Unet)
    for name, weight in body.named_parameters():
        if layer in name and name.endswith("0.weight"):
            weight.mul_(1e38)
    return body


def network_of(engine: Engine, films: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: engine(x, films[:1].expand(len(x), -1))


LAYERS = ["down_modules.0.0.blocks.0", "mid_modules.0.blocks.1", "final"]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_unet_whose_weights_overflow_inside_gives_no_actions(layer: str) -> None:
    body = overflowing_unet(layer)
    x, films = body.inputs(ROWS)
    assert not body(x, films).isfinite().any()
    engine = Engine(body, EngineConfig("openvino", sizes=(Size(ROWS),)))
    assert not engine(x, films).isfinite().any()
    process, noise = problems.problem("ddim", 8).process, Noise.from_seeds([0], x.shape[1:], 8)
    for name in ("sequential", "x0", "paradigms"):
        with pytest.raises(NonFiniteError, match="must not be executed"):
            samplers.get(name)(Denoiser(network_of(engine, films)), process, noise)


def test_observations_that_overflow_a_unet_inside_give_no_actions() -> None:
    """Prepared with ordinary ones, so that nothing could be found out then."""
    body = make(Unet)
    x, films = body.inputs(ROWS)
    engine = Engine(body, EngineConfig("openvino", sizes=(Size(ROWS),)))
    assert engine(x, films).isfinite().all()
    films = films * torch.tensor([1, 1, 1e30, 1])[:, None]
    assert not body(x, films)[2].isfinite().any()
    assert engine(x, films).isfinite().flatten(1).all(dim=1).tolist() == [True, True, False, True]


def test_onnx_runtime_is_refused_where_it_hides_overflow() -> None:
    body = overflowing_unet(LAYERS[0])
    x, films = body.inputs(ROWS)
    engine = Engine(body, EngineConfig("onnxruntime", sizes=(Size(ROWS),)))
    process, noise = problems.problem("ddim", 8).process, Noise.from_seeds([0], x.shape[1:], 8)
    with pytest.raises(ParaPolicyError, match=r"finite numbers in \d of|must not be executed"):
        samplers.get("x0")(Denoiser(network_of(engine, films)), process, noise)


@pytest.mark.parametrize("backend", ["eager", "openvino"])
@pytest.mark.parametrize("answer", [lambda x: (x,), lambda x: x[:1], lambda x: None])
def test_a_network_that_returns_no_prediction_is_refused_by_every_engine(
    backend: str, answer: Callable[[Tensor], Any]
) -> None:
    class Body(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    engine = Engine(Body().eval(), EngineConfig(backend, sizes=(Size(ROWS),)))
    with pytest.raises(InputError, match=r"the network (returns|maps)"):
        Denoiser(lambda x, t: engine(x))(torch.zeros(3, 2), torch.zeros(3), torch.arange(3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_backend_that_hides_what_pytorch_shows_is_refused(bad: float) -> None:
    reference = torch.tensor([[1.0, 2.0], [bad, 2.0]])
    check_output(torch.tensor([[1.0, 2.0], [5.0, -torch.inf]]), reference, "float32")
    with pytest.raises(UnavailableError, match=r"finite numbers in 1 of 2 rows"):
        check_output(torch.tensor([[1.0, 2.0], [0.0, 2.0]]), reference, "float32")
