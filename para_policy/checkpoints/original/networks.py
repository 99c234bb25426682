"""Networks and schedulers in configurations of the original diffusion_policy project."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from para_policy.checkpoints.original.options import Options, only
from para_policy.diffusion.schedulers import build_scheduler
from para_policy.networks.config import TransformerConfig, UnetConfig

_SCHEDULERS = {
    "DDPMScheduler": "DDPMScheduler",
    "DDIMScheduler": "DDIMScheduler",
    "DDPMParallelScheduler": "DDPMScheduler",
    "DDIMParallelScheduler": "DDIMScheduler",
}
"""Known ones, and which of ours takes the same steps."""


def scheduler(options: dict[str, Any]) -> dict[str, Any]:
    """A diffusers configuration from the arguments of a scheduler."""
    target = str(options.get("_target_"))
    name = target.rpartition(".")[2]
    if not target.startswith("diffusers.") or name not in _SCHEDULERS:
        raise ValueError(f"_target_ is {target!r}; expected diffusers' {' or '.join(_SCHEDULERS)}")
    private = [key for key in options if key.startswith("_") and key != "_target_"]
    if private:
        raise ValueError(f"unknown option {private[0]!r}")
    config = {
        "_class_name": _SCHEDULERS[name],
        **{key: options[key] for key in options if key != "_target_"},
    }
    try:
        build_scheduler(config)
    # diffusers computes with whatever it is given.
    except Exception as error:
        raise ValueError(f"diffusers cannot make this scheduler: {error}") from error
    return config


class UnetSize(Options):
    """With the defaults of the policies that make a U-Net themselves."""

    diffusion_step_embed_dim: int = 256
    down_dims: tuple[int, ...] = (256, 512, 1024)
    kernel_size: int = 5
    n_groups: int = 8
    cond_predict_scale: bool = True

    def network(self) -> UnetConfig:
        return UnetConfig(
            down_dims=self.down_dims,
            step_embed_dim=self.diffusion_step_embed_dim,
            kernel_size=self.kernel_size,
            n_groups=self.n_groups,
            film_scale=self.cond_predict_scale,
        )


class TransformerSize(Options):
    """With the defaults of the policy that makes a transformer itself."""

    n_layer: int = 8
    n_cond_layers: int = 0
    n_head: int = 4
    n_emb: int = 256
    p_drop_emb: float = 0.0
    p_drop_attn: float = 0.3
    causal_attn: bool = True
    time_as_cond: Annotated[bool, only(True, "the encoder-only network cannot be converted")] = True

    def network(self) -> TransformerConfig:
        fields = set(TransformerConfig.model_fields) - {"kind"}
        return TransformerConfig(**self.model_dump(include=fields))


class UnetModel(UnetSize):
    """Arguments of the U-Net, with its own defaults."""

    target: Literal["diffusion_policy.model.diffusion.conditional_unet1d.ConditionalUnet1D"] = (
        Field(alias="_target_")
    )
    input_dim: int
    local_cond_dim: Annotated[int | None, only(None, "it is not supported")] = None
    global_cond_dim: int | None = None
    kernel_size: int = 3
    cond_predict_scale: bool = False


class TransformerModel(TransformerSize):
    """Arguments of the transformer, with its own defaults."""

    target: Literal[
        "diffusion_policy.model.diffusion.transformer_for_diffusion.TransformerForDiffusion"
    ] = Field(alias="_target_")
    input_dim: int
    output_dim: int
    horizon: int
    n_obs_steps: int | None = None
    cond_dim: int = 0
    n_layer: int = 12
    n_head: int = 12
    n_emb: int = 768
    p_drop_emb: float = 0.1
    p_drop_attn: float = 0.1
    causal_attn: bool = False
    obs_as_cond: bool = False
    """Without effect there: `cond_dim` decides."""
