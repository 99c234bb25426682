"""Towers of CLIP (Radford et al. 2021): a vision transformer, and a text transformer.

Module names follow Hugging Face's `CLIPVisionModel` and `CLIPTextModel`, below `vision_model.` and
`text_model.`, so that their state dicts load without renaming.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from para_policy.errors import InputError
from para_policy.networks.config import ClipConfig, ClipSize


class ClipVision(nn.Module):
    """Images (M, 3, S, S), S = `image_size`, to the last state of the class token, (M, hidden_size)."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.embeddings = ClipPatches(config)
        # Misspelled there, too.
        self.pre_layrnorm = nn.LayerNorm(config.size.hidden_size, config.size.layer_norm_eps)
        self.encoder = ClipEncoder(config.size)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise InputError(
                f"the CLIP encoder sees images of {x.shape[2]} x {x.shape[3]} pixels; it needs "
                f"{self.image_size} x {self.image_size}"
            )
        return self.encoder(self.pre_layrnorm(self.embeddings(x)), causal=False)[:, 0]


class ClipText(nn.Module):
    """Tokens of one text (L,), the last of which ends it, to the state of that token, (hidden_size,).

    Args:
        size: of the transformer.
        vocabulary: number of tokens.
        positions: most tokens of a text.
    """

    def __init__(self, size: ClipSize, vocabulary: int, positions: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(vocabulary, size.hidden_size),
                "position_embedding": nn.Embedding(positions, size.hidden_size),
            }
        )
        self.encoder = ClipEncoder(size)
        self.final_layer_norm = nn.LayerNorm(size.hidden_size, size.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(len(tokens), device=tokens.device)
        h = self.embeddings["token_embedding"](tokens)
        h = h + self.embeddings["position_embedding"](positions)
        return self.final_layer_norm(self.encoder(h[None], causal=True)[0, -1])


class ClipPatches(nn.Module):
    """Images to tokens (M, 1 + patches, hidden_size): a class token, then the patches row by row."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width, patch = config.size.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(0.02 * torch.randn(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2 + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embedding(x).flatten(2).mT
        tokens = torch.cat([self.class_embedding.expand(len(x), 1, -1), patches], dim=1)
        return tokens + self.position_embedding.weight


class ClipEncoder(nn.Module):
    """Layers over tokens (M, L, hidden_size)."""

    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(size) for _ in range(size.num_hidden_layers))

    def forward(self, h: Tensor, causal: bool) -> Tensor:
        for layer in self.layers:
            h = layer(h, causal)
        return h


class ClipLayer(nn.Module):
    """Attention and feed-forward layers, each of them normalised first and added."""

    def __init__(self, size: ClipSize) -> None:
        super().__init__()
        width = size.hidden_size
        self.self_attn = ClipAttention(width, size.num_attention_heads)
        self.layer_norm1, self.layer_norm2 = (
            nn.LayerNorm(width, size.layer_norm_eps) for _ in range(2)
        )
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(width, size.intermediate_size),
                "fc2": nn.Linear(size.intermediate_size, width),
            }
        )
        self.quick = size.hidden_act == "quick_gelu"

    def forward(self, h: Tensor, causal: bool) -> Tensor:
        h = h + self.self_attn(self.layer_norm1(h), causal)
        wide = self.mlp["fc1"](self.layer_norm2(h))
        wide = wide * torch.sigmoid(1.702 * wide) if self.quick else F.gelu(wide)
        return h + self.mlp["fc2"](wide)


class ClipAttention(nn.Module):
    """Attention of tokens (M, L, width) to all of them, or to none that comes later."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, h: Tensor, causal: bool) -> Tensor:
        query, key, value = (
            layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
