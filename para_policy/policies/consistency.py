"""The fine-tuned network of PCM: the base network plus a change of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.runtime import EngineNetwork
from para_policy.networks import further
from para_policy.samplers.draft import PROGRESS

Change = Tensor | tuple[Tensor, Tensor]
"""Change of a weight: as it is, or the factors (out, rank) and (rank, in) of a low-rank update."""

_KEPT = 8
"""Shares whose merged weights are kept."""


@dataclass(frozen=True, eq=False)
class PicardConsistencyModel:
    """A change of weights that makes one sweep of a parallel solve land near its fixed point.

    Attributes:
        scheduler, steps, splitting: the solve that it was trained for.
        rounds: rounds of the solve that it was trained to replace, at least 1.
        stride: of the rows that these rounds evaluate.
        changes: by name of the weight.
        sha256: of its file, for the record.
        informed: the network sees `samplers.draft.progress` after the observation, through columns
            `networks.further.WEIGHT` that the base network has not.
    """

    scheduler: str
    steps: int
    splitting: str
    rounds: int
    stride: int
    changes: Mapping[str, Change]
    sha256: str = ""
    informed: bool = False

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise InputError unless all changes fit a network with weights of these shapes."""
        if self.informed != any(name.endswith(f".{further.WEIGHT}") for name in self.changes):
            raise InputError(
                f"PCM says informed={self.informed} of itself, and what an informed network sees the "
                f"solve through ('....{further.WEIGHT}') is {'missing' if self.informed else 'there'}"
            )
        for name, change in self.changes.items():
            if name not in shapes:
                raise InputError(f"PCM changes {name!r}, which the network does not have")
            shape = tuple(shapes[name])
            found: Any
            if isinstance(change, tuple):
                found = [tuple(factor.shape) for factor in change]
                rank = change[0].shape[-1]
                expected: Any = [(*shape[:1], rank), (rank, math.prod(shape[1:]))]
            else:
                found, expected = tuple(change.shape), shape
            if found != expected:
                raise InputError(f"PCM changes {name!r} by {found}; the network needs {expected}")

    def on(
        self, network: nn.Module, whole_timesteps: int, engine: EngineConfig | None = None
    ) -> Consistency:
        """Put the changes on the base network; raises InputError if they do not fit it.

        Args:
            whole_timesteps: see `networks.split`.
            engine: how the changed networks run; None for PyTorch as it is.
        """
        self.check(changeable(network))
        if self.informed:
            network = further.widen(copy.deepcopy(network), PROGRESS)
        return Consistency(self, network, whole_timesteps, engine)

    def whole(self, name: str, like: Tensor) -> Tensor:
        """The change of one weight, in its shape and on its device."""
        change = self.changes[name]
        if isinstance(change, tuple):
            up, down = (factor.to(like) for factor in change)
            return (up @ down).reshape(like.shape)
        return change.to(like)


def changeable(network: nn.Module) -> dict[str, Sequence[int]]:
    """Names and shapes of the weights that PCM may change, those of an informed network among them."""
    own = {name: value.shape for name, value in network.named_parameters()}
    return {**own, **further.columns(network, PROGRESS)}


class Consistency:
    """`consistency(share)` is the base network with `share` of the changes in its weights.

    See `samplers.draft`. Weights are merged once for each share, so a round costs one network
    call as before; with share 0 it is the base network itself.

    Attributes:
        model: the changes.
        informed: see `samplers.Consistency`.
    """

    def __init__(
        self,
        model: PicardConsistencyModel,
        network: nn.Module,
        whole_timesteps: int,
        engine: EngineConfig | None = None,
    ) -> None:
        self.model, self._network, self.informed = model, network, model.informed
        self._whole_timesteps, self._engine = whole_timesteps, engine
        base = dict(network.named_parameters())
        self._changes = {name: model.whole(name, base[name]) for name in model.changes}
        self._merged: dict[float, EngineNetwork] = {}

    def __call__(self, share: float) -> EngineNetwork:
        if share not in self._merged:
            if len(self._merged) == _KEPT:  # a long schedule must not fill the memory
                self._merged.clear()
            network = self._network if share == 0.0 else self._merge(share)
            self._merged[share] = EngineNetwork(network, self._whole_timesteps, self._engine)
        return self._merged[share]

    def _merge(self, share: float) -> nn.Module:
        network = copy.deepcopy(self._network)
        for name, weight in network.named_parameters():
            if name in self._changes:
                weight.data += share * self._changes[name]
        return network

    def __repr__(self) -> str:
        return f"Consistency({self.model.sha256})"
