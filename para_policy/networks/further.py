"""Further inputs: numbers that a network sees after those of the observation.

They enter where observation and step do, in each block, through columns of their own that are zero at
first: a network that was widened just now predicts, to the bit, what it did before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.errors import InputError

WEIGHT = "further"
"""Name of the new columns, beside the layers of the map."""

_Network = TypeVar("_Network", bound=nn.Module)


class Wider(nn.Sequential):
    """A nonlinearity and then a linear map, as they are, of their own inputs, and columns for the others."""

    def __init__(self, layers: nn.Sequential, count: int) -> None:
        super().__init__(*layers)
        linear: Any = layers[1]
        self.own = linear.in_features
        self.further = nn.Parameter(linear.weight.new_zeros(linear.out_features, count))

    def forward(self, features: Tensor) -> Tensor:
        own, further = features.tensor_split([self.own], dim=-1)
        # Contiguous, as it was: how a nonlinearity rounds depends on where its inputs end.
        return super().forward(own.contiguous()) + F.linear(further, self.further)


def widen(network: _Network, count: int) -> _Network:
    """Let `network` take `count` numbers more at the end of its condition, in place.

    Raises:
        InputError: for a network whose blocks do not see step and observation through a linear map.
    """
    maps = _maps(network)
    if not maps:
        raise InputError(
            f"a {type(network).__name__} takes no further inputs: its blocks see step and observation "
            "through attention; expected a network of kind unet1d or dit"
        )
    for name, layers in maps.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, Wider(layers, count))
    return network


def columns(network: nn.Module, count: int) -> dict[str, tuple[int, int]]:
    """Names and shapes of the weights that `widen` adds; none to a network that cannot be widened."""
    return {
        f"{name}.{WEIGHT}": (layers[1].out_features, count)
        for name, layers in _maps(network).items()
    }


def _maps(network: nn.Module) -> dict[str, Any]:
    """By name: of each block, a nonlinearity and then a linear map of what step and observation say."""
    modulations: Callable[[], Sequence[nn.Module]] | None = getattr(network, "modulations", None)
    found = set() if modulations is None else set(modulations())
    return {name: module for name, module in network.named_modules() if module in found}
