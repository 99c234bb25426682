"""Reader of policies that LeRobot saved (huggingface/lerobot): `diffusion`, from May 2024 on, and
`multi_task_dit`.

A checkpoint is the directory that `save_pretrained` writes: `config.json`, `model.safetensors`, and
since LeRobot 0.4 two files of processors with the statistics. LeRobot itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from para_policy.checkpoints.changes import read_changed
from para_policy.checkpoints.checkpoint import Checkpoint, match, unwrapped
from para_policy.checkpoints.files import read_json, read_tensors
from para_policy.checkpoints.lerobot.config import read_policy
from para_policy.checkpoints.lerobot.dit import DiTOptions
from para_policy.checkpoints.lerobot.options import CONSTANTS
from para_policy.checkpoints.lerobot.statistics import BUFFERS, PREPROCESSOR, read_normalizers
from para_policy.checkpoints.lerobot.text import text_features
from para_policy.checkpoints.original.unpickle import read_pickle
from para_policy.errors import CheckpointError, InputError
from para_policy.policies.build import TASK, state_shapes

CONFIG_FILE, MODEL_FILE, TRAIN_FILE = "config.json", "model.safetensors", "train_config.json"

# torch.compile puts this into the names of what it wraps.
_COMPILED = "_orig_mod."
_NUMBER = re.compile(r"[0-9]{1,9}")
# The order in which LeRobot's modules were made, and so that of `parameters()`.
_MADE = (
    # diffusion
    "diffusion rgb_encoder unet backbone pool nets out diffusion_step_encoder down_modules "
    "mid_modules up_modules final_conv conv1 bn1 cond_encoder conv2 bn2 conv3 bn3 downsample "
    "residual_conv block "
    # multi_task_dit
    "observation_encoder vision_encoders vision_encoder class_embedding patch_embedding "
    "token_embedding position_embedding embeddings text_encoder projection noise_predictor "
    "pos_embedding time_mlp input_proj transformer_blocks output_proj pre_layrnorm encoder layers "
    "self_attn k_proj v_proj q_proj attn multihead_attn qkv_proj in_proj_weight in_proj_bias out_proj "
    "layer_norm1 mlp fc1 fc2 adaLN_modulation layer_norm2 post_layernorm final_layer_norm "
    "weight bias"
)
_LACKS = (
    "was trained with texts, and needs the one of its task: --task 'what the robot is to do' for "
    "para-policy convert DIRECTORY OUTPUT, which serves everything, and for bench, calibrate, "
    "trajectories and distill; or load_policy(DIRECTORY, task=...)"
)
_RANKS = {part: rank for rank, part in enumerate(_MADE.split())}


def is_lerobot(directory: str | Path) -> bool:
    """Whether a directory holds a LeRobot policy, of whatever type: then read_lerobot explains."""
    try:
        content = read_json(Path(directory) / CONFIG_FILE)
    except CheckpointError:
        return False
    return "input_features" in content or "input_shapes" in content


def read_lerobot(
    directory: str | Path,
    weights: Literal["live", "ema"] = "live",
    changes: Mapping[str, Any] = MappingProxyType({}),
    task: str | None = None,
) -> Checkpoint:
    """Read a LeRobot checkpoint; inputs keep LeRobot's names, such as "observation.state".

    Args:
        weights: "ema" for the averaged weights that LeRobot 0.6 and later keep beside those of a
            checkpoint if it was trained with `--ema.enable=true`.
        changes: other values of keys of `config.json`, see `changes.read_changed`.
        task: what the robot is to do, in words, for a policy that takes a text. Without it, such a
            policy can be described but not act: see `Checkpoint.lacks`.

    Raises:
        CheckpointError: if a file is missing or broken, says something that is not understood, or
            does not fit the others.
        InputError: for other `weights`, or a `task` for a policy that takes none.
        MissingPackageError: if the text needs a package that is not installed.
    """
    if weights not in ("live", "ema"):
        raise InputError(f"weights is {weights!r}; expected 'live' or 'ema'")
    directory = Path(directory)
    path = directory / CONFIG_FILE
    rate = _control_hz(directory / TRAIN_FILE)
    model = directory / MODEL_FILE
    stored = cache(lambda: unwrapped(model, read_tensors(model, finite=False)))
    policy = read_changed(
        path,
        read_json(path),
        changes,
        lambda content: read_policy(path, content, rate, stored, task),
    )
    tensors = stored()
    normalizers = read_normalizers(directory, model, tensors, policy)
    source, tensors = (model, tensors) if weights == "live" else _averaged(directory, tensors)
    for name, value in tensors.items():
        if name.endswith("pool.temperature") and not (value == 1).all():
            raise CheckpointError(
                f"'{source}': '{name}' is {value.tolist()}; only a spatial softmax of temperature "
                "1, which is what LeRobot trains, can be read"
            )
    options, wanted = policy.options, policy.config.task
    state, report = match(
        source,
        tensors,
        {name: size for name, size in state_shapes(policy.config).items() if name != TASK},
        rename=lambda name: options.our_name(name.replace(_COMPILED, "")),
        ignore=lambda name: _statistic(name) or options.why_left_out(name),
    )
    if task is not None and wanted is None:
        raise InputError(f"task is {task!r}; '{directory}' holds a policy that takes no text")
    if task is not None and isinstance(options, DiTOptions):
        processor, tower = directory / PREPROCESSOR, options.text_encoder_name
        state[TASK] = text_features(task, options.hidden_dim, processor, source, tensors, tower)
    elif wanted is not None:
        state[TASK] = torch.zeros(wanted.width)
    lacks = _LACKS if task is None and wanted is not None else None
    return Checkpoint(policy.config, state, normalizers, report, source, lacks)


def _statistic(name: str) -> str | None:
    return "statistics, which become normalizers" if name.startswith(BUFFERS) else None


def _averaged(directory: Path, live: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    """Averaged weights: a checkpoint of their own, or what training needs to go on."""
    # "." has no name, and no parent.
    directory = directory.resolve()
    sibling = directory.with_name(f"{directory.name}_ema") / MODEL_FILE
    if sibling.is_file():
        return sibling, unwrapped(sibling, read_tensors(sibling, finite=False))
    path = directory.parent / "training_state" / "ema_state.pt"
    if not path.is_file():
        raise CheckpointError(
            f"'{directory}' has no averaged weights: neither '{sibling}' nor '{path}' exists. "
            "Use weights='live'; LeRobot averages only if trained with --ema.enable=true"
        )
    try:
        shadow = read_pickle(path)["shadow_params"]
        shapes = [value.shape for value in shadow]
    except (AttributeError, CheckpointError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{path}' is no state of averaged weights with 'shadow_params' ({error}); copy the "
            "checkpoint again, or use weights='live'"
        ) from error
    names = sorted((name for name in live if _is_parameter(name)), key=_made_at)
    expected = [tuple(live[name].shape) for name in names]
    if shapes != expected:
        raise CheckpointError(
            f"'{path}' holds {len(shapes)} tensors of other shapes than the {len(expected)} "
            f"parameters of '{directory / MODEL_FILE}'; they belong to different policies"
        )
    averaged = {name: value.read() for name, value in zip(names, shadow, strict=True)}
    return path, {**live, **averaged}


def _is_parameter(name: str) -> bool:
    """Whether it is trained: not a statistic, neither of the data nor of a batch norm."""
    counted = (".running_mean", ".running_var", ".num_batches_tracked")
    return _statistic(name) is None and not name.endswith((*CONSTANTS, *counted))


def _made_at(name: str) -> list[int]:
    """Sort key that puts parameters in the order in which LeRobot lists them."""
    parts = name.replace(_COMPILED, "").split(".")
    return [
        int(part) if _NUMBER.fullmatch(part) else _RANKS.get(part, len(_RANKS)) for part in parts
    ]


def _control_hz(path: Path) -> float | None:
    """Rate of the environment that the policy was trained for; None if there was none."""
    if not path.is_file():
        return None
    environment = read_json(path).get("env")
    rate = environment.get("fps") if isinstance(environment, dict) else None
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1e6:
        raise CheckpointError(f"'{path}' has env.fps={rate!r}, expected a rate in Hz above 0")
    return float(rate)
