"""A widened network begins as the network it was, to the bit, and then sees the further inputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference.runtime import EngineNetwork
from para_policy.networks import further
from tests.networks.test_split import CONDITION, TIMESTEPS, dit, rows, transformer, unet

COUNT = 2
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": unet,
    "unet with bias only": lambda: unet(film_scale=False),
    "dit": dit,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval().requires_grad_(False)


def conditions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(3, CONDITION, generator=generator),
        100 * torch.randn(3, COUNT, generator=generator),
    )


def test_it_begins_as_it_was_to_the_bit(network: nn.Module) -> None:
    x, t, sample = rows(9)
    own, more = conditions()
    with torch.no_grad():
        expected = network(x, t, own[sample])
        bound = EngineNetwork(network, TIMESTEPS)(x, t, own[sample])
        further.widen(network, COUNT)
        wider = torch.cat([own, more], dim=1)[sample]
        assert torch.equal(network(x, t, wider), expected)
        assert torch.equal(EngineNetwork(network, TIMESTEPS)(x, t, wider), bound)


@pytest.mark.parametrize("tabulated", [TIMESTEPS, 0])
def test_bound_rows_see_what_the_network_sees(network: nn.Module, tabulated: int) -> None:
    names = further.columns(network, COUNT)
    before = dict(network.named_parameters())
    further.widen(network, COUNT)
    after = dict(network.named_parameters())
    assert {name: tuple(after[name].shape) for name in after.keys() - before.keys()} == names
    generator = torch.Generator().manual_seed(3)
    for name in names:
        after[name].data = 0.1 * torch.randn(after[name].shape, generator=generator)
    x, t, sample = rows(9)
    own, more = conditions()
    outputs = []
    for numbers in (more / 100, -more / 100):
        wider = torch.cat([own, numbers], dim=1)[sample]
        outputs.append(network(x, t, wider))
        fast = EngineNetwork(network, tabulated)(x, t, wider)
        torch.testing.assert_close(fast, outputs[-1], atol=2e-5, rtol=0)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_a_network_that_attends_to_step_and_observation_cannot_be_widened() -> None:
    network = transformer()
    assert further.columns(network, COUNT) == {}
    with pytest.raises(InputError, match="TransformerForDiffusion takes no further inputs"):
        further.widen(network, COUNT)
