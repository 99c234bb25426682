"""Networks for inference: what does not depend on the sample is computed once.

Timesteps are few, so their part is tabulated once for each set of weights; the observation is the
same for all rows of a solve, so its part is computed once per chunk (`bind`). The rest, most of the
work, runs on an `Engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.diffusion.denoiser import BoundNetwork
from para_policy.inference import Engine, EngineConfig
from para_policy.networks.transformer import TransformerForDiffusion
from para_policy.networks.unet1d import ConditionalUnet1D


def tabulated(
    network: nn.Module, num_train_timesteps: int, config: EngineConfig | None = None
) -> EngineNetwork:
    """The network for inference, on an engine; its weights must not change any more.

    Args:
        config: how it runs; None for PyTorch as it is.
    """
    config = config or EngineConfig()
    if isinstance(network, ConditionalUnet1D):
        return TabulatedUnet1D(network, num_train_timesteps, config)
    if isinstance(network, TransformerForDiffusion):
        return BindableTransformer(network, config)
    return OtherNetwork(network, config)


class EngineNetwork(ABC):
    """A `Network` whose rows are computed by `engine`."""

    engine: Engine

    @abstractmethod
    def observe(self, condition: Tensor) -> Tensor:
        """What the rows need of the conditions (B, C): (B, ...), once for a whole solve."""

    @abstractmethod
    def inputs(self, x: Tensor, t: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        """What the engine is given for M rows, whose conditions are `observed` (M, ...)."""

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """As the network itself; `condition` has a row for each row of `x`."""
        return self.engine(*self.inputs(x, t, self.observe(condition)))

    def bind(self, condition: Tensor) -> BoundNetwork:
        """Fix the conditions (B, C); the network then takes `x`, `t` and the sample of each row."""
        observed = self.observe(condition)
        return lambda x, t, sample: self.engine(*self.inputs(x, t, observed[sample]))


class TabulatedUnet1D(EngineNetwork):
    """A `ConditionalUnet1D` whose FiLM terms are looked up."""

    @torch.no_grad()
    def __init__(
        self, network: ConditionalUnet1D, num_train_timesteps: int, config: EngineConfig
    ) -> None:
        self.network = network
        encoders = [block.cond_encoder for block in network.blocks()]
        weight = torch.cat([encoder.get_parameter("1.weight") for encoder in encoders])
        biases: list[Tensor] = [encoder.get_parameter("1.bias") for encoder in encoders]
        width = network.step_embed_dim
        self._of_step, self._of_condition = weight[:, :width], weight[:, width:].contiguous()
        self._bias = torch.cat(biases)
        self._table = self._step(torch.arange(num_train_timesteps, device=weight.device))
        self.engine = Engine(_UnetRows(network, [len(bias) for bias in biases]).eval(), config)

    def _step(self, t: Tensor) -> Tensor:
        features = F.mish(self.network.diffusion_step_encoder(t))
        return F.linear(features, self._of_step, self._bias)

    def observe(self, condition: Tensor) -> Tensor:
        """The condition's part of all FiLM terms."""
        return F.linear(F.mish(condition), self._of_condition)

    def inputs(self, x: Tensor, t: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        """States and FiLM terms."""
        # Between the trained timesteps there is no table.
        of_step = self._step(t) if t.is_floating_point() else self._table[t]
        return x, of_step + observed


class _UnetRows(nn.Module):
    """States and the FiLM terms of all blocks, one after another, to predictions."""

    def __init__(self, network: ConditionalUnet1D, sizes: list[int]) -> None:
        super().__init__()
        self.network, self.sizes = network, sizes

    def forward(self, x: Tensor, films: Tensor) -> Tensor:
        return self.network.denoise(x, films.split(self.sizes, dim=1))


class BindableTransformer(EngineNetwork):
    """A `TransformerForDiffusion` that embeds the observation once."""

    def __init__(self, network: TransformerForDiffusion, config: EngineConfig) -> None:
        self.network = network
        self.engine = Engine(_TransformerRows(network).eval(), config)

    def observe(self, condition: Tensor) -> Tensor:
        """Tokens of the observation."""
        return self.network.observe(condition)

    def inputs(self, x: Tensor, t: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        """States, timesteps and tokens."""
        # One type for whole timesteps and those between them: buffers of engines have one.
        return x, t.to(torch.float32), observed


class _TransformerRows(nn.Module):
    """States, timesteps and tokens of the observation to predictions."""

    def __init__(self, network: TransformerForDiffusion) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        return self.network.denoise(x, t, observed)


class OtherNetwork(EngineNetwork):
    """A network of which nothing is known: all of it is computed for each row."""

    def __init__(self, network: nn.Module, config: EngineConfig) -> None:
        self.engine = Engine(network, config)

    def observe(self, condition: Tensor) -> Tensor:
        """The condition itself."""
        return condition

    def inputs(self, x: Tensor, t: Tensor, observed: Tensor) -> tuple[Tensor, ...]:
        """What the network takes."""
        return x, t, observed
