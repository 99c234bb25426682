"""The fine-tuned network of PCM: the base network plus a change of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from para_policy.denoiser import Network
from para_policy.errors import InputError

Change = Tensor | tuple[Tensor, Tensor]
"""Change of a weight: as it is, or the factors (out, rank) and (rank, in) of a low-rank update."""


@dataclass(frozen=True, eq=False)
class PicardConsistencyModel:
    """A change of weights that makes one sweep of a parallel solve land near its fixed point.

    Attributes:
        scheduler, steps, splitting: the solve that it was trained for.
        rounds: rounds of the solve that it was trained to replace, at least 1.
        stride: of the rows that these rounds evaluate.
        changes: by name of the weight.
        sha256: of its file, for the record.
    """

    scheduler: str
    steps: int
    splitting: str
    rounds: int
    stride: int
    changes: Mapping[str, Change]
    sha256: str = ""

    def bind(self, network: nn.Module) -> Consistency:
        """Put the changes on the base network; raises InputError if they do not fit it."""
        return Consistency(self, network)

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """The whole change of each weight on `device`."""
        moved = {}
        for name, change in self.changes.items():
            if isinstance(change, tuple):
                up, down = (factor.to(device, torch.float32) for factor in change)
                moved[name] = up @ down
            else:
                moved[name] = change.to(device, torch.float32)
        return moved


class Consistency:
    """`consistency(share)` is the base network with `share` of the changes in its weights.

    See `samplers.switching`. Weights are merged once for each share, so a round costs one network
    call as before; with share 0 it is the base network itself.
    """

    def __init__(self, model: PicardConsistencyModel, network: nn.Module) -> None:
        self.model, self._network = model, network
        parameters = dict(network.named_parameters())
        device = next(network.parameters()).device
        self._changes = {}
        for name, change in model.to(device).items():
            if name not in parameters or parameters[name].numel() != change.numel():
                held = tuple(parameters[name].shape) if name in parameters else None
                raise InputError(
                    f"PCM changes {name!r} {tuple(change.shape)}; the network has {held}: "
                    "it was trained for another network"
                )
            self._changes[name] = change.reshape(parameters[name].shape)
        self._merged: dict[float, Network] = {}

    def __call__(self, share: float) -> Network:
        if share == 0.0:
            return self._network
        if share not in self._merged:
            base = dict(self._network.named_parameters())
            weights = {name: base[name] + share * change for name, change in self._changes.items()}

            def network(*inputs: Any) -> Tensor:
                output: Tensor = functional_call(self._network, weights, inputs)
                return output

            self._merged[share] = network
        return self._merged[share]

    def __repr__(self) -> str:
        return f"Consistency({self.model.sha256})"
