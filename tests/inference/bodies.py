"""Small networks for engines, and inputs for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from para_policy.networks.unet1d import ConditionalUnet1D

HORIZON, ACTIONS = 8, 2


class Plain(nn.Module):
    """A convolution with a shift: quickly compiled by any backend."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(ACTIONS, width, 3, padding=1)
        self.last = nn.Conv1d(width, ACTIONS, 3, padding=1)
        self.width = width

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.transpose(1, 2)) + shift[..., None])
        return self.last(h).transpose(1, 2)

    def inputs(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randn(rows, HORIZON, ACTIONS, generator=generator),
            torch.randn(rows, self.width, generator=generator),
        )


class Unet(nn.Module):
    """The body of a `ConditionalUnet1D`, with its FiLM terms in one input."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ConditionalUnet1D(ACTIONS, 6, (8, 16), step_embed_dim=8, kernel_size=3)
        encoders = [block.cond_encoder for block in self.network.blocks()]
        self.widths = [len(encoder.get_parameter("1.bias")) for encoder in encoders]

    def forward(self, x: Tensor, films: Tensor) -> Tensor:
        return self.network.denoise(x, films.split(self.widths, dim=1))

    def inputs(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randn(rows, HORIZON, ACTIONS, generator=generator),
            torch.randn(rows, sum(self.widths), generator=generator),
        )


def make(kind: type[nn.Module]) -> nn.Module:
    """Random weights, always the same, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval().requires_grad_(False)
