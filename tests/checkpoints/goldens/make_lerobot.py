"""Records what LeRobot's own code makes of small policies, for test_lerobot.py.

Run once for each version, from the root of this repository, with the folder of that version on
PYTHONPATH and a Python that has torch 2.13, torchvision 0.28 and diffusers 0.42:

    python -m tests.checkpoints.goldens.make_lerobot VERSION

    0.4.4    from PyPI, with draccus 0.10.0 as it asks for
    0.3.3    from PyPI, with draccus 0.10.0
    2024     folder lerobot/ of huggingface/lerobot before its commit 3c0a209f9 (January 2025)
    0.6.2    folder src/ of huggingface/lerobot at commit 7427f3180 (August 2026)

0.6.2 asks for Python 3.12; on 3.11 its generic classes
were rewritten with TypeVar, which changes no numbers.

A file `lerobot_<case>.safetensors` holds the files that `save_pretrained` wrote, except for the
weights, which `weights` makes again from their names and shapes; observations (To, *shape); what
they are when normalised; the condition (1, C); the network's output at `x` and `t`; a whole sample
(1, horizon, A) with its noise; and the actions (n_action_steps, A) in physical units.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.networks.goldens.recipe import fill

HERE = Path(__file__).parent
COUNTER = "num_batches_tracked"
STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
# Images have to leave 2 x 2 positions or more, or keypoints have nowhere to go.
TINY = {
    "down_dims": (16, 32),
    "kernel_size": 3,
    "diffusion_step_embed_dim": 8,
    "horizon": 8,
    "n_action_steps": 4,
    "num_train_timesteps": 20,
    "spatial_softmax_num_keypoints": 3,
}


@dataclass(frozen=True)
class Case:
    """A policy: version of LeRobot, widths of its features, modes, and other options."""

    version: str
    inputs: Mapping[str, tuple[int, ...]]
    options: Mapping[str, Any]
    action_dim: int = 2
    modes: Mapping[str, str] = field(default_factory=dict)


STATES = {STATE: (3,), ENVIRONMENT: (5,)}
MODES = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX", "ENV": "MEAN_STD"}
ONE = {STATE: (3,), "observation.image": (3, 40, 48)}
TWO = {"observation.images.wrist": (3, 40, 44), STATE: (3,), "observation.images.a": (3, 40, 44)}
BATCH_NORM = {"use_group_norm": False, "crop_shape": None}

CASES = {
    "states": Case("0.4.4", STATES, {}, modes=MODES),
    "default_modes": Case("0.4.4", STATES, {"down_dims": (16, 24, 32), "n_obs_steps": 3}),
    "mean_std": Case(
        "0.4.4",
        STATES,
        {"use_film_scale_modulation": False, "prediction_type": "sample", "n_groups": 4}
        | {"noise_scheduler_type": "DDIM", "num_inference_steps": 5, "clip_sample_range": 3.0},
        modes={"STATE": "QUANTILES", "ACTION": "MEAN_STD", "ENV": "QUANTILE10"},
    ),
    "quantiles": Case(
        "0.4.4",
        STATES,
        {"clip_sample": False, "n_obs_steps": 1, "beta_schedule": "linear", "beta_end": 0.1}
        | {"noise_scheduler_type": "DDIM"},
        action_dim=3,
        modes={"STATE": "IDENTITY", "ACTION": "QUANTILES", "ENV": "MIN_MAX"},
    ),
    "camera": Case("0.4.4", ONE, {"crop_shape": (33, 36)}),
    "cameras_shared": Case("0.4.4", {**TWO, ENVIRONMENT: (5,)}, {**BATCH_NORM, "n_obs_steps": 1}),
    "resnet34": Case("0.4.4", TWO, {"vision_backbone": "resnet34", "crop_shape": (35, 37)}),
    "old_states": Case("0.3.3", STATES, {}, modes=MODES),
    "old_cameras": Case(
        "0.3.3",
        {**TWO, ENVIRONMENT: (5,)},
        {"crop_shape": (33, 38)},
        modes={**MODES, "ENV": "MIN_MAX"},
    ),
    "2024_states": Case("2024", STATES, {}, modes={STATE: "min_max", ACTION: "mean_std"}),
    "2024_camera": Case(
        "2024",
        ONE,
        {"crop_shape": (33, 36), "noise_scheduler_type": "DDIM", "num_inference_steps": 4},
        modes={STATE: "mean_std", "observation.image": "mean_std", ACTION: "min_max"},
    ),
    "resize": Case(
        "0.6.2",
        {**TWO, ENVIRONMENT: (5,)},
        {"resize_shape": (48, 44), "crop_ratio": 0.85, "pretrained_backbone_weights": None}
        | {"use_group_norm": True, "use_separate_rgb_encoder_per_camera": True},
    ),
    "resnet50": Case(
        "0.6.2",
        ONE,
        {"resize_shape": (35, 50), "pretrained_backbone_weights": None, "use_group_norm": False}
        | {"vision_backbone": "resnet50", "use_separate_rgb_encoder_per_camera": False},
    ),
}


def weights(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """Content of model.safetensors, as far as `is_made`."""
    made = {
        name: torch.zeros(tuple(shape), dtype=torch.int64 if name.endswith(COUNTER) else None)
        for name, shape in shapes.items()
    }
    fill(made, seed)
    return made


def is_made(name: str) -> bool:
    """Whether a tensor of model.safetensors comes from `weights`, and not from the golden file."""
    return "normalize" not in name and not name.endswith("pos_grid")


def statistics(inputs: Mapping[str, tuple[int, ...]], action_dim: int) -> dict[str, dict[str, Any]]:
    """Of all kinds; one state and one action never change."""
    generator = np.random.default_rng(1)
    made = {}
    for name, shape in {**inputs, ACTION: (action_dim,)}.items():
        form = (shape[0], 1, 1) if len(shape) == 3 else shape
        size = 0.2 if len(shape) == 3 else 100.0
        levels = np.sort(generator.random((6, *form)), axis=0) * size
        stats = dict(zip(("min", "q01", "q10", "q90", "q99", "max"), levels, strict=True))
        stats["mean"], stats["std"] = levels.mean(0), levels.std(0)
        if name in (STATE, ACTION):
            stats = {key: value.copy() for key, value in stats.items()}
            for key, value in stats.items():
                value[1] = 0.0 if key == "std" else 12.345
        made[name] = {key: torch.tensor(value, dtype=torch.float32) for key, value in stats.items()}
    return made


def observations(
    case: Case, stats: Mapping[str, Mapping[str, Tensor]], steps: int
) -> dict[str, Tensor]:
    """Inside the ranges of the data, oldest first: (To, *shape), uint8 for images."""
    generator = np.random.default_rng(2)
    made = {}
    for name, shape in case.inputs.items():
        if len(shape) == 3:
            # Smooth, so that resizing has something to keep.
            rough = torch.from_numpy(generator.random((steps, 3, 6, 6), dtype=np.float32))
            image = torch.nn.functional.interpolate(rough, shape[1:], mode="bicubic")
            made[name] = (255 * image.clamp(0, 1)).to(torch.uint8)
        else:
            part = torch.from_numpy(generator.random((steps, *shape), dtype=np.float32))
            low, high = stats[name]["min"], stats[name]["max"]
            made[name] = low + (high - low) * part
    return made


def build(case: Case, stats: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """The real policy, and what comes before and after it in the version at hand."""
    options: dict[str, Any] = {**TINY, **case.options}
    if case.version == "2024":
        from lerobot.common.policies.diffusion.configuration_diffusion import DiffusionConfig
        from lerobot.common.policies.diffusion.modeling_diffusion import DiffusionPolicy

        modes = dict(case.modes)
        options["output_normalization_modes"] = {ACTION: modes.pop(ACTION)}
        options["input_normalization_modes"] = modes
        options["input_shapes"] = {name: list(shape) for name, shape in case.inputs.items()}
        options["output_shapes"] = {ACTION: [case.action_dim]}
    else:
        from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
        from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
        from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

        kinds = {STATE: FeatureType.STATE, ENVIRONMENT: FeatureType.ENV}
        options["input_features"] = {
            name: PolicyFeature(kinds.get(name, FeatureType.VISUAL), shape)
            for name, shape in case.inputs.items()
        }
        options["output_features"] = {ACTION: PolicyFeature(FeatureType.ACTION, (case.action_dim,))}
        if case.modes:
            options["normalization_mapping"] = {
                kind: NormalizationMode(mode) for kind, mode in case.modes.items()
            }
        options["device"] = "cpu"
    config = DiffusionConfig(**options)
    if case.version in ("2024", "0.3.3"):
        policy = DiffusionPolicy(config, dataset_stats=stats)
        return policy, policy.normalize_inputs, None
    from lerobot.policies.factory import make_pre_post_processors

    return DiffusionPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)


def train_config(policy: Any, directory: Path) -> None:
    """What `lerobot-train --env.type=pusht` writes beside the policy."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.envs.configs import PushtEnv

    dataset = DatasetConfig(repo_id="lerobot/pusht")
    TrainPipelineConfig(dataset, env=PushtEnv(), policy=policy.config)._save_pretrained(directory)


def record(name: str, case: Case) -> None:
    stats = statistics(case.inputs, case.action_dim)
    policy, before, after = build(case, stats)
    policy.eval()
    shapes = {key: list(v.shape) for key, v in policy.state_dict().items() if is_made(key)}
    policy.load_state_dict(weights(shapes), strict=False)
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        policy.save_pretrained(directory)
        if after is not None:
            before.save_pretrained(directory)
            after.save_pretrained(directory)
        if name == "states":
            train_config(policy, directory)
        written = load_file(directory / "model.safetensors")
        assert {key: list(v.shape) for key, v in written.items() if is_made(key)} == shapes
        tensors |= {f"model/{key}": v for key, v in written.items() if not is_made(key)}
        for path in directory.iterdir():
            if path.suffix == ".json":
                texts[path.name] = path.read_text()
            elif path.suffix == ".safetensors" and path.name != "model.safetensors":
                tensors |= {f"file/{path.name}/{key}": v for key, v in load_file(path).items()}
    tensors |= run(
        case, policy, before, after, observations(case, stats, policy.config.n_obs_steps)
    )
    versions = {name: metadata.version(name) for name in ("torch", "diffusers", "draccus")}
    facts = {
        "lerobot": case.version,
        **versions,
        "files": texts,
        "shapes": shapes,
        "parameters": [key for key, _ in policy.named_parameters() if is_made(key)],
    }
    save_file(
        {key: v.contiguous() for key, v in tensors.items()},
        HERE / f"lerobot_{name}.safetensors",
        {"golden": json.dumps(facts)},
    )


@torch.no_grad()
def run(
    case: Case, policy: Any, before: Any, after: Any, obs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Everything from observations to actions, as `select_action` does it."""
    model, config = policy.diffusion, policy.config
    cameras = [key for key, shape in case.inputs.items() if len(shape) == 3]
    batch = {key: [] for key in case.inputs}
    for step in range(config.n_obs_steps):
        now = {key: value[None, step] for key, value in obs.items()}
        now = {key: value / 255 if key in cameras else value for key, value in now.items()}
        for key, value in before(now).items():
            if key in batch:
                batch[key].append(value)
    seen = {key: torch.stack(values, dim=1) for key, values in batch.items()}
    result = {f"obs/{key}": value for key, value in obs.items()}
    result |= {f"normalized/{key}": v[0] for key, v in seen.items() if key not in cameras}
    if cameras:
        seen["observation.images"] = torch.stack([seen[key] for key in cameras], dim=-4)
    condition = model._prepare_global_conditioning(seen)

    generator = torch.Generator().manual_seed(3)
    shape = (1, config.horizon, case.action_dim)
    x, t = torch.randn(2, *shape[1:], generator=generator), torch.tensor([3, 17])
    initial = torch.randn(shape, generator=generator)
    steps = torch.randn(1, model.num_inference_steps, *shape[1:], generator=generator)
    with (
        mock.patch(
            "diffusers.schedulers.scheduling_ddpm.randn_tensor", side_effect=steps[0][:, None]
        ),
        mock.patch("torch.randn", return_value=initial),
    ):
        sample = model.conditional_sample(1, global_cond=condition)
    first = config.n_obs_steps - 1
    chunk = sample[:, first : first + config.n_action_steps]
    actions = (
        after(chunk) if after is not None else policy.unnormalize_outputs({ACTION: chunk})[ACTION]
    )
    return {
        **result,
        "condition": condition,
        "x": x,
        "t": t,
        "output": model.unet(x, t, global_cond=condition.expand(2, -1)),
        "initial": initial,
        "steps": steps,
        "sample": sample,
        "actions": actions[0],
    }


if __name__ == "__main__":
    for case_name, described in CASES.items():
        if described.version == sys.argv[1]:
            record(case_name, described)
            print(case_name)
