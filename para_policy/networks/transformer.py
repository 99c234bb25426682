"""TransformerForDiffusion, the noise predictor of Diffusion Policy (Chi et al. 2023), time-series
diffusion transformer variant.

Actions are decoder tokens; they attend to a memory of one token for the denoising step and one
for each observation step. Module names follow the original project, so that its state dicts load
without renaming.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from para_policy.diffusion.denoiser import BoundNetwork
from para_policy.networks.split import RunRows
from para_policy.networks.unet1d import SinusoidalPosEmb

_INIT_STD = 0.02

_Layer = TypeVar("_Layer", bound=nn.Module)


class TransformerForDiffusion(nn.Module):
    """Predicts noise, clean sample or velocity of a noisy action chunk.

    `forward` is `denoise` after `observe`. Who denoises the same observation several times calls
    `observe` once.

    Args:
        action_dim: width A of the chunk.
        horizon: actions Tp of the chunk.
        n_obs_steps: observation steps To.
        feature_dim: width of one observation step.
        n_layer: decoder layers.
        n_head: attention heads of every layer.
        n_emb: width of the tokens.
        n_cond_layers: self-attention layers over the memory; with 0, every token of it passes
            through the same two linear layers instead.
        causal_attn: an action attends to no later action and to no later observation.
        p_drop_emb: dropout of the embedded tokens.
        p_drop_attn: dropout in the attention layers.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        n_obs_steps: int,
        feature_dim: int,
        *,
        n_layer: int = 12,
        n_head: int = 12,
        n_emb: int = 768,
        n_cond_layers: int = 0,
        causal_attn: bool = False,
        p_drop_emb: float = 0.1,
        p_drop_attn: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_obs_steps = n_obs_steps
        self.feature_dim = feature_dim
        self.mixes_memory = n_cond_layers > 0
        layer = partial(_layer, n_emb=n_emb, n_head=n_head, dropout=p_drop_attn)
        self.input_emb = nn.Linear(action_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.empty(1, horizon, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = nn.Linear(feature_dim, n_emb)
        self.cond_pos_emb = nn.Parameter(torch.empty(1, 1 + n_obs_steps, n_emb))
        self.encoder: nn.Module = (
            nn.TransformerEncoder(
                layer(nn.TransformerEncoderLayer), n_cond_layers, enable_nested_tensor=False
            )
            if self.mixes_memory
            else nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
        )
        self.decoder = nn.TransformerDecoder(layer(nn.TransformerDecoderLayer), n_layer)
        self.mask: Tensor | None
        self.memory_mask: Tensor | None
        masks = _causal_masks(horizon, n_obs_steps) if causal_attn else (None, None)
        for name, mask in zip(("mask", "memory_mask"), masks, strict=True):
            self.register_buffer(name, mask, persistent=False)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, action_dim)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INIT_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_weight, std=_INIT_STD)
                nn.init.zeros_(module.in_proj_bias)
        nn.init.normal_(self.pos_emb, std=_INIT_STD)
        nn.init.normal_(self.cond_pos_emb, std=_INIT_STD)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Map `x` (M, Tp, A), timesteps `t` (M,) and `condition` (M, To * feature_dim), whose
        observation steps follow one another, to (M, Tp, A)."""
        return self.denoise(x, t, self.observe(condition))

    def split(self, whole_timesteps: int) -> TransformerSplit:
        """The work of inference, with the observation embedded once."""
        return TransformerSplit(self)

    def observe(self, condition: Tensor) -> Tensor:
        """Do the work that depends on neither `x` nor `t`.

        Args:
            condition: (M, To * feature_dim), observation steps one after another.

        Returns:
            Tokens of the observation steps for `denoise`, (M, To, n_emb).
        """
        steps = condition.unflatten(-1, (self.n_obs_steps, self.feature_dim))
        tokens = self.drop(self.cond_obs_emb(steps) + self.cond_pos_emb[:, 1:])
        return tokens if self.mixes_memory else self.encoder(tokens)

    def denoise(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        """Map `x` (M, Tp, A), timesteps `t` (M,) and `observed` (M, To, n_emb) from `observe` to
        (M, Tp, A)."""
        step = self.time_emb(t)[:, None].to(observed.dtype)
        step = self.drop(step + self.cond_pos_emb[:, :1])
        if self.mixes_memory:
            memory = self.encoder(torch.cat([step, observed], dim=1))
        else:
            memory = torch.cat([self.encoder(step), observed], dim=1)
        h = self.decoder(
            self.drop(self.input_emb(x) + self.pos_emb),
            memory,
            tgt_mask=self.mask,
            memory_mask=self.memory_mask,
            # Otherwise torch compares the mask with a causal one, which waits for the GPU.
            tgt_is_causal=self.mask is not None,
        )
        return self.head(self.ln_f(h))


class TransformerSplit:
    """A `TransformerForDiffusion` that embeds the observation once; see `networks.split`."""

    def __init__(self, network: TransformerForDiffusion) -> None:
        self._network = network
        self.rows: nn.Module = TransformerRows(network).eval()

    def bind(self, condition: Tensor, run: RunRows) -> BoundNetwork:
        """Compute the tokens of the observation."""
        tokens = self._network.observe(condition)
        # One type for whole timesteps and those between them: buffers of engines have one.
        return lambda x, t, sample: run(x, t.to(torch.float32), tokens[sample])


class TransformerRows(nn.Module):
    """States, timesteps and tokens of the observation to predictions."""

    def __init__(self, network: TransformerForDiffusion) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, observed: Tensor) -> Tensor:
        return self.network.denoise(x, t, observed)


def _layer(kind: Callable[..., _Layer], n_emb: int, n_head: int, dropout: float) -> _Layer:
    return kind(
        n_emb, n_head, 4 * n_emb, dropout, activation="gelu", batch_first=True, norm_first=True
    )


def _causal_masks(horizon: int, n_obs_steps: int) -> tuple[Tensor, Tensor]:
    """What to add to the attention scores: 0, or -inf where action i may not look.

    Action i sees actions 0 to i, and of the memory the step token and observations 0 to i.
    """
    action = torch.arange(horizon)[:, None]
    blocked = [action < torch.arange(horizon), action < torch.arange(1 + n_obs_steps) - 1]
    later, unobserved = (torch.zeros(b.shape).masked_fill(b, -torch.inf) for b in blocked)
    return later, unobserved
