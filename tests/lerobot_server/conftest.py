"""A checkpoint that LeRobot wrote, and a server for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.checkpoints.goldens.make_lerobot_dit import TINY, make_clip
from tests.networks.goldens.recipe import fill

if TYPE_CHECKING:
    from para_policy.lerobot_server.server import Server

# They import LeRobot, which is no dependency of the tests.
collect_ignore = [] if importlib.util.find_spec("lerobot") else ["pointrobot.py", "test_server.py"]

STEPS = 20
RANGE = 100.0
"""Positions and actions are within plus and minus this."""


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small diffusion policy with two observation steps and random weights."""
    return save_checkpoint(tmp_path_factory.mktemp("lerobot") / "policy")


def save_checkpoint(directory: Path) -> Path:
    """A diffusion policy with two observation steps."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    config = DiffusionConfig(
        **_features(),
        pretrained_backbone_weights=None,
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        crop_shape=None,
        spatial_softmax_num_keypoints=4,
        down_dims=(16, 32),
        n_groups=4,
        diffusion_step_embed_dim=16,
        num_train_timesteps=STEPS,
    )
    torch.manual_seed(0)
    return _save(DiffusionPolicy(config), directory)


def save_act(directory: Path) -> Path:
    """A policy that samples nothing."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    sizes = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1}
    config = ACTConfig(
        **_features(),
        **sizes,
        pretrained_backbone_weights=None,
        chunk_size=8,
        n_action_steps=8,
        use_vae=False,
    )
    torch.manual_seed(0)
    return _save(ACTPolicy(config), directory)


def save_dit(directory: Path) -> Path:
    """A policy that is told its task in words, with weights that make them count."""
    from lerobot.policies.multi_task_dit import MultiTaskDiTConfig, MultiTaskDiTPolicy

    clip = str(make_clip(directory / "clip", {}))
    towers = {"vision_encoder_name": clip, "text_encoder_name": clip, "tokenizer_max_length": 24}
    policy = MultiTaskDiTPolicy(MultiTaskDiTConfig(**_features(), **towers, **TINY))
    with torch.no_grad():
        fill(policy.state_dict(), seed=0)
    return _save(policy, directory)


def _features() -> dict[str, Any]:
    from lerobot.configs.types import FeatureType, PolicyFeature

    return {
        "input_features": {
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (2,))},
        "device": "cpu",
        "push_to_hub": False,
    }


def _save(policy: Any, directory: Path) -> Path:
    from lerobot.policies.factory import make_pre_post_processors

    reach = {
        "min": torch.full((2,), -RANGE),
        "max": torch.full((2,), RANGE),
        "mean": torch.zeros(2),
        "std": torch.full((2,), RANGE),
    }
    colours = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    statistics = {
        "observation.state": reach,
        "observation.images.top": colours,
        "action": reach,
    }
    processors = make_pre_post_processors(policy.config, dataset_stats=statistics)
    for part in (policy, *processors):
        part.save_pretrained(directory)
    return directory


@pytest.fixture
def server() -> Server:
    from para_policy.lerobot_server.server import Server

    return Server()
