"""Weights and statistics for any configuration: for tests that need no trained policy."""

from __future__ import annotations

import torch
from torch import Tensor

from para_policy.policies.build import state_shapes
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer


def random_weights(config: PolicyConfig) -> dict[str, Tensor]:
    """Of a size that keeps outputs near 1."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) / max(shape[1:].numel(), 1) ** 0.5
        for name, shape in state_shapes(config).items()
    }


def random_normalizers(config: PolicyConfig) -> dict[str, LinearNormalizer]:
    """Another scale and offset for every coordinate."""
    generator = torch.Generator().manual_seed(1)
    widths = {name: shape[0] for name, shape in config.inputs.items()}
    return {
        name: LinearNormalizer(
            0.5 + torch.rand(width, generator=generator), torch.randn(width, generator=generator)
        )
        for name, width in {**widths, "action": config.action_dim}.items()
    }
