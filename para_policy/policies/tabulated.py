"""Networks for inference: what does not depend on the sample is computed once.

Timesteps are few, so their part is tabulated once for each set of weights; the observation is the
same for all rows of a solve, so its part is computed once per chunk (`bind`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.denoiser import BoundNetwork, Network
from para_policy.policies.transformer import TransformerForDiffusion
from para_policy.policies.unet1d import ConditionalUnet1D


def tabulated(network: nn.Module, num_train_timesteps: int) -> Network:
    """The network for inference; its weights must not change any more."""
    if isinstance(network, ConditionalUnet1D):
        return TabulatedUnet1D(network, num_train_timesteps)
    if isinstance(network, TransformerForDiffusion):
        return BindableTransformer(network)
    return network


class TabulatedUnet1D:
    """A `ConditionalUnet1D` whose FiLM terms are looked up."""

    @torch.no_grad()
    def __init__(self, network: ConditionalUnet1D, num_train_timesteps: int) -> None:
        self.network = network
        encoders = [block.cond_encoder for block in network.blocks()]
        weight = torch.cat([encoder.get_parameter("1.weight") for encoder in encoders])
        biases: list[Tensor] = [encoder.get_parameter("1.bias") for encoder in encoders]
        self._sizes = [len(bias) for bias in biases]
        width = network.step_embed_dim
        self._of_step, self._of_condition = weight[:, :width], weight[:, width:].contiguous()
        self._bias = torch.cat(biases)
        self._table = self._step(torch.arange(num_train_timesteps, device=weight.device))

    def _step(self, t: Tensor) -> Tensor:
        features = F.mish(self.network.diffusion_step_encoder(t))
        return F.linear(features, self._of_step, self._bias)

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """As the network itself; `condition` has a row for each row of `x`."""
        return self.bind(condition)(x, t, torch.arange(len(x), device=x.device))

    def bind(self, condition: Tensor) -> BoundNetwork:
        """Fix the conditions (B, C); the network then takes `x`, `t` and the sample of each row."""
        of_sample = F.linear(F.mish(condition), self._of_condition)

        def bound(x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            # Between the trained timesteps there is no table.
            of_step = self._step(t) if t.is_floating_point() else self._table[t]
            films = (of_step + of_sample[sample]).split(self._sizes, dim=1)
            return self.network.denoise(x, films)

        return bound


class BindableTransformer:
    """A `TransformerForDiffusion` that embeds the observation once."""

    def __init__(self, network: TransformerForDiffusion) -> None:
        self.network = network

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """As the network itself."""
        output: Tensor = self.network(x, t, condition)
        return output

    def bind(self, condition: Tensor) -> BoundNetwork:
        """Fix the conditions (B, C); the network then takes `x`, `t` and the sample of each row."""
        observed = self.network.observe(condition)
        return lambda x, t, sample: self.network.denoise(x, t, observed[sample])
