"""DiT, a diffusion transformer over the actions of a chunk (Peebles & Xie 2023), as LeRobot's
`multi_task_dit` has it.

Actions are tokens that attend to each other. Denoising step and observation enter each block as one
vector, which shifts and scales the normalised tokens and gates what the block adds (AdaLN-Zero).
That is one linear map of their features, and does not depend on the sample, so that it is split
off for inference: see `split.Terms`. Module names follow LeRobot, so that its state dicts load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.networks.split import Terms
from para_policy.networks.unet1d import SinusoidalPosEmb

_TERMS = 6
"""Of a block: shift, scale and gate of its attention, then those of its feed-forward layers."""


class DiT(nn.Module):
    """Predicts noise, clean sample or velocity of a noisy action chunk.

    Args:
        action_dim: width A of the chunk.
        horizon: actions Tp of the chunk.
        condition_dim: width C of the flattened observation.
        hidden_dim: width of the tokens; a multiple of `num_heads`.
        num_layers, num_heads: blocks, and attention heads of each.
        dropout: of the attention weights, in training.
        use_positional_encoding: add learned positions to the tokens.
        timestep_embed_dim: width of the embedded denoising step.
        use_rope: rotate queries and keys by their positions (Su et al. 2021).
        rope_base: from one action to the next the slowest rotation turns by about 1 / rope_base rad.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_dim: int,
        *,
        hidden_dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        dropout: float = 0.1,
        use_positional_encoding: bool = False,
        timestep_embed_dim: int = 256,
        use_rope: bool = True,
        rope_base: float = 10000.0,
    ) -> None:
        super().__init__()
        self.timestep_embed_dim = timestep_embed_dim
        self.time_mlp = nn.Sequential(
            SinusoidalPosEmb(timestep_embed_dim),
            nn.Linear(timestep_embed_dim, 2 * timestep_embed_dim),
            nn.GELU(),
            nn.Linear(2 * timestep_embed_dim, timestep_embed_dim),
            nn.GELU(),
        )
        self.input_proj = nn.Linear(action_dim, hidden_dim)
        self.pos_embedding = (
            nn.Parameter(0.02 * torch.randn(1, horizon, hidden_dim))
            if use_positional_encoding
            else None
        )
        features = timestep_embed_dim + condition_dim
        self.transformer_blocks = nn.ModuleList(
            DiTBlock(hidden_dim, num_heads, features, dropout) for _ in range(num_layers)
        )
        self.output_proj = nn.Linear(hidden_dim, action_dim)
        self.rotations: Tensor | None
        rotations = _rotations(horizon, hidden_dim // num_heads, rope_base) if use_rope else None
        self.register_buffer("rotations", rotations, persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Map `x` (M, Tp, A), timesteps `t` (M,), whole or not, and `condition` (M, C) to (M, Tp, A)."""
        features = torch.cat([self.time_mlp(t), condition], dim=-1)
        terms = [modulation(features) for modulation in self.modulations()]
        return self.denoise(x, torch.cat(terms, dim=-1))

    def split(self, whole_timesteps: int) -> Terms:
        """The work of inference; see `networks.split`."""
        maps, width = self.modulations(), self.timestep_embed_dim
        return Terms(DiTRows(self), maps, self.time_mlp, width, whole_timesteps)

    def modulations(self) -> list[nn.Module]:
        """Of each block, what makes its terms of the features of step and observation."""
        return [block.get_submodule("adaLN_modulation") for block in self.transformer_blocks]

    def denoise(self, x: Tensor, terms: Tensor) -> Tensor:
        """Map `x` (M, Tp, A), with what steps and observations say to all blocks, one after another,
        (M, num_layers * 6 * hidden_dim), to (M, Tp, A)."""
        h = self.input_proj(x)
        if self.pos_embedding is not None:
            h = h + self.pos_embedding
        shape = (len(self.transformer_blocks), _TERMS, 1, h.shape[-1])
        for block, its in zip(
            self.transformer_blocks, terms.unflatten(-1, shape).unbind(1), strict=True
        ):
            h = block(h, its, self.rotations)
        return self.output_proj(h)


class DiTBlock(nn.Module):
    """Self-attention and feed-forward layers, each with AdaLN-Zero; a new block passes its input on."""

    def __init__(self, hidden_dim: int, num_heads: int, features: int, dropout: float) -> None:
        super().__init__()
        self.attn = SelfAttention(hidden_dim, num_heads, dropout)
        self.norm1, self.norm2 = (
            nn.LayerNorm(hidden_dim, eps=1e-6, elementwise_affine=False) for _ in range(2)
        )
        self.mlp = nn.Sequential(
            nn.Linear(hidden_dim, 4 * hidden_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * hidden_dim, hidden_dim),
        )
        modulation = nn.Linear(features, _TERMS * hidden_dim)
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, h: Tensor, terms: Tensor, rotations: Tensor | None) -> Tensor:
        """`terms` (M, 6, 1, hidden_dim) are what `adaLN_modulation` makes of the features."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = terms.unbind(1)
        h = h + gate * self.attn(self.norm1(h) * (1 + scale) + shift, rotations)
        return h + ff_gate * self.mlp(self.norm2(h) * (1 + ff_scale) + ff_shift)


class SelfAttention(nn.Module):
    """Attention of tokens (M, Tp, hidden_dim) to all of them."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv_proj = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, h: Tensor, rotations: Tensor | None) -> Tensor:
        """`rotations` (2, Tp, hidden_dim / num_heads) turn queries and keys; None leaves them."""
        qkv = self.qkv_proj(h).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if rotations is not None:
            query, key = (_rotated(v, rotations.to(v.dtype)) for v in (query, key))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class DiTRows(nn.Module):
    """States and the terms of all blocks, one after another, to predictions."""

    def __init__(self, network: DiT) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, terms: Tensor) -> Tensor:
        return self.network.denoise(x, terms)


def _rotations(positions: int, width: int, base: float) -> Tensor:
    """Cosines and sines of the angle of every position and channel, (2, positions, width).

    Channels i and i + width / 2 form a plane.
    """
    speed = base ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), speed).repeat(1, 2)
    return torch.stack([angle.cos(), angle.sin()])


def _rotated(x: Tensor, rotations: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * rotations[0] + torch.cat([-second, first], dim=-1) * rotations[1]
