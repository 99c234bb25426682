"""ConditionalUnet1D, the noise predictor of Diffusion Policy (Chi et al. 2023, CNN variant).

Module names follow the original project, so that its state dicts load without renaming.

Timestep and observation enter each block through one linear map of their features (FiLM). They do
not depend on the sample, so that they are split off for inference: see `split.Terms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from para_policy.networks.split import Terms


class SinusoidalPosEmb(nn.Module):
    """Timestep `t` (M,) to an embedding (M, dim): sines first, then cosines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        frequency = torch.exp(
            torch.arange(half, device=t.device, dtype=torch.float32)
            * (-math.log(10000.0) / (half - 1))
        )
        angle = t.to(torch.float32)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Conv1dBlock(nn.Module):
    """Conv1d, GroupNorm, Mish."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, n_groups: int
    ) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, out_channels),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ConditionalResidualBlock1D(nn.Module):
    """Two convolution blocks with FiLM (bias, or scale and bias without `1 +`) between them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        kernel_size: int,
        n_groups: int,
        film_scale: bool,
    ) -> None:
        super().__init__()
        self.film_scale = film_scale
        self.blocks = nn.ModuleList(
            [
                Conv1dBlock(in_channels, out_channels, kernel_size, n_groups),
                Conv1dBlock(out_channels, out_channels, kernel_size, n_groups),
            ]
        )
        # The trailing Unflatten of the original holds no weights; index 1 must stay the Linear.
        self.cond_encoder = nn.Sequential(
            nn.Mish(), nn.Linear(cond_dim, (1 + film_scale) * out_channels)
        )
        self.residual_conv: nn.Module = (
            nn.Conv1d(in_channels, out_channels, 1)
            if in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """`film` is what `cond_encoder` makes of the condition, (M, C) or (M, 2 C)."""
        h = self.blocks[0](x)
        if self.film_scale:
            scale, bias = film[..., None].chunk(2, dim=1)
            h = scale * h + bias
        else:
            h = h + film[..., None]
        return self.blocks[1](h) + self.residual_conv(x)


class Downsample1d(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample1d(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ConditionalUnet1D(nn.Module):
    """Predicts noise, clean sample or velocity of a noisy action chunk.

    Args:
        action_dim: width A of the chunk.
        global_cond_dim: width of the flattened observation.
        down_dims: channels of each level; the horizon must be divisible by 2 ** (levels - 1).
        step_embed_dim: width of the timestep embedding.
        kernel_size, n_groups: of every convolution block; the last one always has 8 groups.
        film_scale: the condition scales the channels of a block, and not only shifts them.
    """

    def __init__(
        self,
        action_dim: int,
        global_cond_dim: int,
        down_dims: Sequence[int] = (256, 512, 1024),
        step_embed_dim: int = 256,
        kernel_size: int = 5,
        n_groups: int = 8,
        film_scale: bool = True,
    ) -> None:
        super().__init__()
        self.step_embed_dim = step_embed_dim
        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalPosEmb(step_embed_dim),
            nn.Linear(step_embed_dim, 4 * step_embed_dim),
            nn.Mish(),
            nn.Linear(4 * step_embed_dim, step_embed_dim),
        )
        cond_dim = step_embed_dim + global_cond_dim
        levels = list(zip([action_dim, *down_dims[:-1]], down_dims, strict=True))

        def block(in_channels: int, out_channels: int) -> ConditionalResidualBlock1D:
            return ConditionalResidualBlock1D(
                in_channels, out_channels, cond_dim, kernel_size, n_groups, film_scale
            )

        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    block(c_in, c_out),
                    block(c_out, c_out),
                    nn.Identity() if last else Downsample1d(c_out),
                ]
            )
            for (c_in, c_out), last in zip(levels, _is_last(len(levels)), strict=True)
        )
        self.mid_modules = nn.ModuleList([block(down_dims[-1], down_dims[-1]) for _ in range(2)])
        # The finest skip is never consumed: levels[1:] leaves it out, as in the original.
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * c_out, c_in), block(c_in, c_in), Upsample1d(c_in)])
            for c_in, c_out in reversed(levels[1:])
        )
        self.final_conv = nn.Sequential(
            Conv1dBlock(down_dims[0], down_dims[0], kernel_size, n_groups=8),
            nn.Conv1d(down_dims[0], action_dim, 1),
        )

    def forward(self, x: Tensor, t: Tensor, global_cond: Tensor) -> Tensor:
        """Map `x` (M, horizon, A), timesteps `t` (M,) and `global_cond` (M, C) to (M, horizon, A)."""
        cond = torch.cat([self.diffusion_step_encoder(t), global_cond], dim=-1)
        return self.denoise(x, [modulation(cond) for modulation in self.modulations()])

    def split(self, whole_timesteps: int) -> Terms:
        """The work of inference; see `networks.split`."""
        maps = self.modulations()
        rows = UnetRows(self, [len(each.get_parameter("1.bias")) for each in maps])
        return Terms(rows, maps, self.diffusion_step_encoder, self.step_embed_dim, whole_timesteps)

    def modulations(self) -> list[nn.Module]:
        """Of each block, what makes its FiLM terms of the features of step and observation."""
        return [block.cond_encoder for block in self.blocks()]

    def blocks(self) -> list[ConditionalResidualBlock1D]:
        """All residual blocks, in the order in which `denoise` passes through them."""
        down = [block for level in self.down_modules for block in _parts(level)[:2]]
        up = [block for level in self.up_modules for block in _parts(level)[:2]]
        return [*down, *self.mid_modules, *up]

    def denoise(self, x: Tensor, films: Sequence[Tensor]) -> Tensor:
        """Map `x` (M, horizon, A), with what the condition says to each of `blocks()`."""
        film = iter(films)
        h = x.transpose(1, 2)
        skips: list[Tensor] = []
        for level in self.down_modules:
            first, second, downsample = _parts(level)
            h = second(first(h, next(film)), next(film))
            skips.append(h)
            h = downsample(h)
        for mid in self.mid_modules:
            h = mid(h, next(film))
        for level in self.up_modules:
            first, second, upsample = _parts(level)
            h = torch.cat([h, skips.pop()], dim=1)
            h = upsample(second(first(h, next(film)), next(film)))
        return self.final_conv(h).transpose(1, 2)


class UnetRows(nn.Module):
    """States and the FiLM terms of all blocks, one after another, to predictions."""

    def __init__(self, network: ConditionalUnet1D, sizes: list[int]) -> None:
        super().__init__()
        self.network, self.sizes = network, sizes

    def forward(self, x: Tensor, films: Tensor) -> Tensor:
        return self.network.denoise(x, films.split(self.sizes, dim=1))


def _parts(level: nn.Module) -> list[nn.Module]:
    return list(level.children())


def _is_last(n: int) -> list[bool]:
    return [i == n - 1 for i in range(n)]
