"""The networks that a configuration describes, with random weights."""

from __future__ import annotations

import torch

from para_policy.networks.config import TransformerConfig, UnetConfig
from para_policy.networks.dit import DiT
from para_policy.networks.transformer import TransformerForDiffusion
from para_policy.networks.unet1d import ConditionalUnet1D
from para_policy.networks.vision import VisionEncoder
from para_policy.policies.config import PolicyConfig

VISION = "vision."
"""Prefix of the vision encoder's weights in a policy's state."""

TASK = "task.features"
"""Name of the features of the task's text in a policy's state, (width,)."""


def build_network(config: PolicyConfig) -> ConditionalUnet1D | TransformerForDiffusion | DiT:
    """Make the noise predictor that `config` describes, with random weights."""
    options = config.network.model_dump(exclude={"kind"})
    if isinstance(config.network, UnetConfig):
        return ConditionalUnet1D(config.action_dim, config.condition_dim, **options)
    if isinstance(config.network, TransformerConfig):
        return TransformerForDiffusion(
            config.action_dim, config.horizon, config.n_obs_steps, config.feature_dim, **options
        )
    return DiT(config.action_dim, config.horizon, config.condition_dim, **options)


def build_vision(config: PolicyConfig) -> VisionEncoder | None:
    """Make the encoders of the policy's cameras, with random weights; None if it has none."""
    return None if config.vision is None else VisionEncoder(config.vision)


def state_shapes(config: PolicyConfig) -> dict[str, torch.Size]:
    """Shapes of all weights of a policy, by name."""
    with torch.device("meta"):
        network, vision = build_network(config), build_vision(config)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    if vision is not None:
        shapes |= {VISION + name: value.shape for name, value in vision.state_dict().items()}
    if config.task is not None:
        shapes[TASK] = torch.Size([config.task.width])
    return shapes
