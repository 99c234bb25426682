"""An adapted network begins as the network it was, and only its low-rank factors learn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from para_policy.checkpoints.native import read_config
from para_policy.networks import further
from para_policy.policies.build import build_network
from para_policy.policies.consistency import PicardConsistencyModel
from para_policy.samplers.draft import PROGRESS
from para_policy.training.pcm import low_rank
from tests.checkpoint import tiny_config
from tests.training.demonstrations import REPOSITORY

SHIPPED = REPOSITORY / "checkpoints" / "pusht_state"
LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (3, 4, 8)),
    "grouped conv1d": (lambda: nn.Conv1d(4, 4, 3, groups=4), (3, 4, 8)),
    "convtranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (3, 4, 8)),
}


def unet() -> nn.Module:
    torch.manual_seed(0)
    return build_network(tiny_config(20)).eval()


def inputs(rows: int = 5) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    x, condition = (torch.randn(rows, *shape, generator=generator) for shape in ((16, 2), (36,)))
    return x, torch.arange(rows), condition


def randomised(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Give every update random factors; return them by weight, as a PCM file holds them."""
    generator = torch.Generator().manual_seed(2)
    for _, update in low_rank.updates(network):
        update.up.data = 0.1 * torch.randn(update.up.shape, generator=generator)
    return {name: (update.up, update.down) for name, update in low_rank.updates(network)}


def weights_of_linear_maps(network: nn.Module) -> set[str]:
    kinds = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)
    return {f"{name}.weight" for name, layer in network.named_modules() if isinstance(layer, kinds)}


def test_adapting_changes_no_output() -> None:
    network = unet()
    expected = network(*inputs())
    low_rank.adapt(network, 4)
    assert torch.equal(network(*inputs()), expected)


def test_only_the_factors_train() -> None:
    network = unet()
    before = copy.deepcopy(network.state_dict())
    low_rank.adapt(network, 4)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    factors = {name for name, _ in network.named_parameters() if name.endswith((".up", ".down"))}
    assert trained == factors
    assert len(trained) == 2 * len(weights_of_linear_maps(unet()))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.1)
    start = network(*inputs()).detach()
    for _ in range(2):
        optimizer.zero_grad()
        network(*inputs()).square().mean().backward()
        optimizer.step()
    after = network.state_dict()
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        assert torch.equal(
            after.get(name, after.get(f"{layer}.parametrizations.weight.original")), value
        )
    assert not torch.allclose(network(*inputs()), start, atol=1e-3)
    assert all(update.up.any() for _, update in low_rank.updates(network))


def test_columns_for_further_inputs_begin_at_zero_and_are_trained_as_they_are() -> None:
    network = unet()
    x, t, condition = inputs()
    expected = network(x, t, condition)
    names = set(further.columns(network, 2))
    low_rank.adapt(further.widen(network, 2), 4)
    seen = torch.cat([condition, torch.randn(len(x), 2)], dim=1)
    assert torch.equal(network(x, t, seen), expected)
    columns = dict(low_rank.whole(network))
    assert set(columns) == names
    assert all(value.requires_grad for value in columns.values())
    assert {name for name, _ in low_rank.updates(network)} == weights_of_linear_maps(unet())


def test_rank_64_of_the_shipped_network_is_below_10_mb() -> None:
    network = build_network(read_config(SHIPPED))
    low_rank.adapt(further.widen(network, PROGRESS), 64)
    stored = sum(value.numel() for value in network.parameters() if value.requires_grad)
    assert 1e6 < 2 * stored < 10e6  # two bytes each


def test_names_are_those_of_the_plain_state() -> None:
    network = unet()
    plain = network.state_dict()
    low_rank.adapt(network, 4)
    found = dict(low_rank.updates(network))
    assert set(found) == weights_of_linear_maps(unet())
    for name, update in found.items():
        change = (update.up @ update.down).numel()
        assert change == plain[name].numel()


def test_the_factors_on_the_plain_network_are_the_adapted_network() -> None:
    network, adapted = unet(), unet()
    low_rank.adapt(adapted, 4)
    changes = randomised(adapted)
    model = PicardConsistencyModel("ddpm", 20, "x0", 1, 1, changes)
    expected = adapted(*inputs())
    assert not torch.allclose(network(*inputs()), expected, atol=1e-2)
    torch.testing.assert_close(
        model.on(network, 100)(1.0)(*inputs()), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("rank", [1, 2, 100])
def test_each_kind_of_layer_gets_a_change_of_that_rank(kind: str, rank: int) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    network, x = nn.Sequential(layer()), torch.randn(shape)
    weight, expected = network[0].weight.detach().clone(), network(x)
    low_rank.adapt(network, rank)
    assert torch.equal(network(x), expected)
    randomised(network)
    change = (network[0].weight - weight).flatten(1)
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == min(rank, *change.shape)
    assert not torch.allclose(network(x), expected)


def test_other_layers_are_frozen_and_left_alone() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Mish())
    low_rank.adapt(network, 2)
    assert [name for name, _ in low_rank.updates(network)] == ["0.weight"]
    assert not any(p.requires_grad for p in network[1].parameters())
    assert not network[0].bias.requires_grad
