"""Networks with tabulated timesteps and bound observations predict what the plain ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from para_policy import Denoiser
from para_policy.inference import EngineConfig
from para_policy.inference.runtime import EngineNetwork, Runtime, Shapes
from para_policy.networks.dit import DiT
from para_policy.networks.transformer import TransformerForDiffusion
from para_policy.networks.unet1d import ConditionalUnet1D
from tests.networks.goldens.recipe import fill

TIMESTEPS, ACTIONS, CONDITION = 20, 2, 6
_BIASES = ("cond_encoder.1.bias", "adaLN_modulation.1.bias")


def unet(film_scale: bool = True) -> nn.Module:
    return ConditionalUnet1D(
        ACTIONS, CONDITION, (8, 16), step_embed_dim=8, kernel_size=3, film_scale=film_scale
    )


def transformer(n_cond_layers: int = 0) -> nn.Module:
    return TransformerForDiffusion(
        ACTIONS, 8, 2, CONDITION // 2, n_layer=1, n_head=2, n_emb=8, n_cond_layers=n_cond_layers
    )


def dit(**positions: bool) -> nn.Module:
    size = {"hidden_dim": 8, "num_layers": 2, "num_heads": 2, "timestep_embed_dim": 8}
    network = DiT(ACTIONS, 8, CONDITION, **size, **positions)
    # As it begins, it sees neither steps nor observations.
    fill(network.state_dict(), seed=0)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": unet,
    "unet with bias only": lambda: unet(film_scale=False),
    "transformer": transformer,
    "transformer whose memory mixes": lambda: transformer(n_cond_layers=1),
    "dit": dit,
    "dit with learned positions": lambda: dit(use_rope=False, use_positional_encoding=True),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval().requires_grad_(False)


def rows(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 8, ACTIONS, generator=generator)
    t = torch.randint(TIMESTEPS, (count,), generator=generator)
    return x, t, torch.randint(3, (count,), generator=generator)


@pytest.mark.parametrize("tabulated", [TIMESTEPS, 0])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("count", [1, 9])
def test_bound_rows_are_the_networks_own(
    network: nn.Module, count: int, whole: bool, tabulated: int
) -> None:
    condition = torch.randn(3, CONDITION, generator=torch.Generator().manual_seed(2))
    x, t, sample = rows(count)
    t = t if whole else t / TIMESTEPS
    expected = network(x, t, condition[sample])
    assert expected.std() > 1e-3
    fast = EngineNetwork(network, tabulated)
    torch.testing.assert_close(fast(x, t, condition[sample]), expected, atol=2e-5, rtol=0)
    denoiser = Denoiser(fast, condition)
    torch.testing.assert_close(denoiser(x, t, sample), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("made", [unet, dit])
def test_only_whole_timesteps_are_tabulated(made: Callable[[], nn.Module]) -> None:
    """The table of a DiT of LeRobot's default size takes 74 MB."""

    def held(times: tuple[float, float] | None) -> int:
        shapes = Shapes(8, ACTIONS, CONDITION, TIMESTEPS, times)
        runtime = Runtime(made().eval(), shapes, torch.device("cpu"), EngineConfig())
        tensors = vars(runtime._on_engine._split).values()
        return sum(value.numel() for value in tensors if isinstance(value, Tensor))

    bias = sum(map(len, (v for k, v in made().named_parameters() if k.endswith(_BIASES))))
    assert held(None) - held((0.0, 1.0)) == TIMESTEPS * bias


def test_a_denoiser_binds_each_network_once() -> None:
    class Counting:
        bound = 0

        def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            raise AssertionError("a network that can be bound is called through what it returns")

        def bind(self, condition: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
            self.bound += 1
            return lambda x, t, sample: x + condition[sample].sum()

    first, second = Counting(), Counting()
    condition = torch.ones(1, 1)
    denoiser = Denoiser(first, condition)
    x, t, sample = torch.zeros(2, 1, 1), torch.zeros(2, dtype=torch.int64), torch.tensor([0, 0])
    other = denoiser.with_network(second)
    for _ in range(3):
        assert denoiser(x, t, sample).unique().item() == 2.0
        other(x, t, sample)
    assert (first.bound, second.bound) == (1, 1)
    assert (denoiser.rounds, denoiser.evals) == (other.rounds, other.evals) == (6, 12)


def test_any_other_network_gets_all_that_it_takes() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return x + t[:, None, None] + condition.sum(dim=1)[:, None, None]

    plain, (x, t, sample) = Plain(), rows(5)
    condition = torch.randn(3, CONDITION, generator=torch.Generator().manual_seed(2))
    expected = plain(x, t, condition[sample])
    assert torch.equal(EngineNetwork(plain, TIMESTEPS)(x, t, condition[sample]), expected)
    assert torch.equal(Denoiser(EngineNetwork(plain, TIMESTEPS), condition)(x, t, sample), expected)
