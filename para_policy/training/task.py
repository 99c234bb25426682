"""What a training run trains: its network, optimiser, losses and result."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from diffusers.training_utils import EMAModel
from pydantic import BaseModel
from torch import Tensor, nn
from torch.optim import Optimizer

from para_policy.extras import extra
from para_policy.training.config import RunConfig

with extra("train", "training"):
    from accelerate import Accelerator


class Task(Protocol):
    """What a run trains.

    Attributes:
        config: all that the result depends on; a run is resumed with the same one only, but for
        changeable: parts of `config`, as pydantic excludes them.
        evaluation_name: what `evaluation_loss` is measured on.
        run: length and records of the run.
    """

    @property
    def config(self) -> BaseModel: ...

    @property
    def changeable(self) -> Any: ...

    @property
    def evaluation_name(self) -> str: ...

    @property
    def run(self) -> RunConfig: ...

    def network(self) -> nn.Module:
        """The network to train; parameters without `requires_grad` stay as they are."""
        ...

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer: ...

    def schedule(self, optimizer: Optimizer) -> Any:
        """A learning rate scheduler of torch."""
        ...

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel: ...

    def loss(self, network: nn.Module, step: int, accelerator: Accelerator) -> Tensor:
        """Loss of optimiser step `step`."""
        ...

    def evaluation_loss(self, network: nn.Module, accelerator: Accelerator) -> float:
        """Loss on a fixed set, comparable over steps; `network` holds the averaged weights."""
        ...

    def export(self, network: nn.Module, directory: Path) -> None:
        """Write what a user loads; `network` holds the averaged weights."""
        ...
