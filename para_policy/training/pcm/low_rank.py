"""Low-rank adaptation (LoRA, Hu et al. 2021) through torch's parametrisations.

`peft` would bring `transformers` along; a parametrisation works on every layer with a weight, and
the network's code and state names stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from para_policy.networks.further import WEIGHT

_LAYERS = (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)


class LowRankUpdate(nn.Module):
    """W_0 + up down, for a weight W_0 (out, ...): `up` (out, rank) begins at 0, so nothing changes."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).reshape(weight.shape)


def adapt(network: nn.Module, rank: int) -> None:
    """Freeze `network` and add a trainable update of `rank` to each of its linear maps, in place.

    Columns for further inputs, which begin at zero, are trained as they are.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.endswith(f".{WEIGHT}"))
    for layer in [layer for layer in network.modules() if isinstance(layer, _LAYERS)]:
        parametrize.register_parametrization(layer, "weight", LowRankUpdate(layer.weight, rank))


def whole(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name of each trained weight that is no factor of an update, and itself."""
    factors = {factor for _, update in updates(network) for factor in update.parameters()}
    for name, value in network.named_parameters():
        if value.requires_grad and value not in factors:
            yield name, value


def updates(network: nn.Module) -> Iterator[tuple[str, LowRankUpdate]]:
    """Name of each adapted weight, as in the plain network's state, and its update."""
    for name, module in network.named_modules():
        if isinstance(module, LowRankUpdate):
            yield name.removesuffix(".parametrizations.weight.0") + ".weight", module
