"""The network has the original project's structure, names and arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from para_policy.networks.unet1d import ConditionalUnet1D, SinusoidalPosEmb

GROUPS = 4


def tiny() -> ConditionalUnet1D:
    torch.manual_seed(0)
    return ConditionalUnet1D(3, 5, (8, 16, 24), step_embed_dim=12, kernel_size=3, n_groups=GROUPS)


@pytest.mark.parametrize(("cond_dim", "millions"), [(40, 65.78), (10, 65.35)])
def test_the_published_sizes(cond_dim: int, millions: float) -> None:
    with torch.device("meta"):
        network = ConditionalUnet1D(2, cond_dim, (256, 512, 1024), 256)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_state_dict_names_and_shapes_are_the_original_ones() -> None:
    with torch.device("meta"):
        state = ConditionalUnet1D(2, 40, (256, 512, 1024), 256, kernel_size=5).state_dict()
    expected = {
        "diffusion_step_encoder.1.weight": (1024, 256),
        "diffusion_step_encoder.3.bias": (256,),
        "down_modules.0.0.blocks.0.block.0.weight": (256, 2, 5),
        "down_modules.0.0.blocks.1.block.1.weight": (256,),
        "down_modules.0.0.cond_encoder.1.weight": (512, 296),
        "down_modules.0.0.residual_conv.weight": (256, 2, 1),
        "down_modules.0.2.conv.weight": (256, 256, 3),
        "down_modules.2.1.blocks.1.block.0.bias": (1024,),
        "mid_modules.0.cond_encoder.1.weight": (2048, 296),
        "mid_modules.1.blocks.0.block.0.weight": (1024, 1024, 5),
        "up_modules.0.0.blocks.0.block.0.weight": (512, 2048, 5),
        "up_modules.1.0.residual_conv.weight": (256, 1024, 1),
        "up_modules.1.2.conv.weight": (256, 256, 4),
        "final_conv.0.block.0.weight": (256, 256, 5),
        "final_conv.1.bias": (2,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected
    absent = ("down_modules.2.2.conv.weight", "down_modules.0.1.residual_conv.weight")
    assert not any(name in state for name in absent)


def test_the_timestep_embedding_lists_sines_then_cosines() -> None:
    embedding = SinusoidalPosEmb(8)(torch.tensor([0, 7, 99]))
    for row, t in zip(embedding, (0, 7, 99), strict=True):
        angles = [t * 10000 ** (-i / 3) for i in range(4)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)


class Plain:
    """The published forward pass, written once more from its weights alone."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = weight.shape[2] // 2
        return F.conv1d(x, weight, self.state[f"{name}.bias"], stride, padding)

    def block(self, name: str, x: Tensor, groups: int = GROUPS) -> Tensor:
        norm = (self.state[f"{name}.1.weight"], self.state[f"{name}.1.bias"])
        return F.mish(F.group_norm(self.conv(f"{name}.0", x), groups, *norm))

    def residual(self, name: str, x: Tensor, cond: Tensor) -> Tensor:
        film = self.linear(f"{name}.cond_encoder.1", F.mish(cond))
        channels = film.shape[1] // 2
        h = self.block(f"{name}.blocks.0.block", x)
        h = film[:, :channels, None] * h + film[:, channels:, None]
        h = self.block(f"{name}.blocks.1.block", h)
        skip = f"{name}.residual_conv"
        return h + (self.conv(skip, x) if f"{skip}.weight" in self.state else x)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        step = F.mish(self.linear("diffusion_step_encoder.1", SinusoidalPosEmb(12)(t)))
        cond = torch.cat([self.linear("diffusion_step_encoder.3", step), cond], dim=1)
        h, skips = x.mT, []
        for level in range(3):
            for i in range(2):
                h = self.residual(f"down_modules.{level}.{i}", h, cond)
            skips.append(h)
            if level < 2:
                h = self.conv(f"down_modules.{level}.2.conv", h, stride=2)
        for i in range(2):
            h = self.residual(f"mid_modules.{i}", h, cond)
        for level in range(2):
            h = torch.cat([h, skips.pop()], dim=1)
            for i in range(2):
                h = self.residual(f"up_modules.{level}.{i}", h, cond)
            up = f"up_modules.{level}.2.conv"
            weight, bias = self.state[f"{up}.weight"], self.state[f"{up}.bias"]
            h = F.conv_transpose1d(h, weight, bias, 2, 1)
        return self.conv("final_conv.1", self.block("final_conv.0.block", h, groups=8)).mT


def test_the_forward_pass_is_the_published_one() -> None:
    network = tiny().double()
    x, t = torch.randn(6, 8, 3, dtype=torch.float64), torch.tensor([0, 1, 5, 50, 98, 99])
    cond = torch.randn(6, 5, dtype=torch.float64)
    network.diffusion_step_encoder[0].register_forward_hook(lambda *a: a[2].double())
    plain = Plain(dict(network.state_dict()))
    plain_output = _with_double_embedding(plain, x, t, cond)
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, cond), plain_output, rtol=0, atol=1e-12)


def _with_double_embedding(plain: Plain, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    linear = plain.linear
    plain.linear = lambda name, value: linear(name, value.double())  # type: ignore[method-assign]
    return plain(x, t, cond)


@pytest.mark.parametrize("horizon", [4, 16, 32])
def test_the_output_has_the_shape_of_the_input(horizon: int) -> None:
    x = torch.randn(2, horizon, 3)
    assert tiny()(x, torch.tensor([3, 4]), torch.randn(2, 5)).shape == x.shape


def test_rows_are_independent_and_depend_on_time_and_condition() -> None:
    network = tiny().eval()
    x, t, cond = torch.randn(4, 8, 3), torch.tensor([1, 20, 50, 99]), torch.randn(4, 5)
    with torch.no_grad():
        together = network(x, t, cond)
        torch.testing.assert_close(together[2:3], network(x[2:3], t[2:3], cond[2:3]))
        assert not torch.allclose(together, network(x, t.flip(0), cond))
        assert not torch.allclose(together, network(x, t, cond.flip(0)))
