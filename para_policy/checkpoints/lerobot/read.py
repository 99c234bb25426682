"""Reader of diffusion policies that LeRobot saved (huggingface/lerobot, from May 2024 on).

A checkpoint is the directory that `save_pretrained` writes: `config.json`, `model.safetensors`, and
since LeRobot 0.4 two files of processors with the statistics. LeRobot itself is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from para_policy.checkpoints.changes import read_changed
from para_policy.checkpoints.checkpoint import Checkpoint, match, unwrapped
from para_policy.checkpoints.files import read_json, read_tensors
from para_policy.checkpoints.lerobot.config import LeRobotPolicy, read_policy
from para_policy.checkpoints.lerobot.statistics import BUFFERS, read_normalizers
from para_policy.checkpoints.original.unpickle import read_pickle
from para_policy.errors import CheckpointError, InputError
from para_policy.policies.build import VISION, state_shapes

CONFIG_FILE, MODEL_FILE, TRAIN_FILE = "config.json", "model.safetensors", "train_config.json"

_ENCODER, _NETWORK = "diffusion.rgb_encoder.", "diffusion.unet."
# torch.compile puts this into the names of what it wraps.
_COMPILED = "_orig_mod."
_LEFT_OUT = {
    # robomimic's spatial softmax, which LeRobot used until June 2024, holds two vectors.
    "pool.pos_grid": "positions of pixels, which follow from the size of the image",
    "pool.pos_x": "positions of pixels, which follow from the size of the image",
    "pool.pos_y": "positions of pixels, which follow from the size of the image",
    "pool.temperature": "temperature of the spatial softmax, which is 1",
}
_NUMBER = re.compile(r"[0-9]{1,9}")
# The order in which LeRobot's modules were made, and so that of `parameters()`.
_MADE = (
    "diffusion rgb_encoder unet backbone pool nets out diffusion_step_encoder down_modules "
    "mid_modules up_modules final_conv conv1 bn1 cond_encoder conv2 bn2 conv3 bn3 downsample "
    "residual_conv block weight bias"
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
) -> Checkpoint:
    """Read a LeRobot checkpoint; inputs keep LeRobot's names, such as "observation.state".

    Args:
        weights: "ema" for the averaged weights that LeRobot 0.6 and later keep beside those of a
            checkpoint if it was trained with `--ema.enable=true`.
        changes: other values of keys of `config.json`, see `changes.read_changed`.

    Raises:
        CheckpointError: if a file is missing or broken, says something that is not understood, or
            does not fit the others.
        InputError: for other `weights`.
    """
    if weights not in ("live", "ema"):
        raise InputError(f"weights is {weights!r}; expected 'live' or 'ema'")
    directory = Path(directory)
    path = directory / CONFIG_FILE
    rate = _control_hz(directory / TRAIN_FILE)
    policy = read_changed(
        path, read_json(path), changes, lambda content: read_policy(path, content, rate)
    )
    model = directory / MODEL_FILE
    tensors = unwrapped(model, read_tensors(model, finite=False))
    normalizers = read_normalizers(directory, model, tensors, policy)
    source, tensors = (model, tensors) if weights == "live" else _averaged(directory, tensors)
    for name, value in tensors.items():
        if name.endswith("pool.temperature") and not (value == 1).all():
            raise CheckpointError(
                f"'{source}': '{name}' is {value.tolist()}; only a spatial softmax of temperature "
                "1, which is what LeRobot trains, can be read"
            )
    state, report = match(
        source,
        tensors,
        state_shapes(policy.config),
        rename=lambda name: _our_name(name, policy),
        ignore=_why_left_out,
    )
    return Checkpoint(policy.config, state, normalizers, report, source)


def _our_name(name: str, policy: LeRobotPolicy) -> str:
    name = name.replace(_COMPILED, "")
    if name.startswith(_ENCODER):
        place = name.removeprefix(_ENCODER)
        place = place if policy.separate_encoders else f"0.{place}"
        return f"{VISION}encoders." + re.sub(r"^([0-9]+)[.]out[.]", r"\1.head.", place)
    place = name.removeprefix(_NETWORK)
    # The third module of a level scales time down or up; theirs is the convolution itself.
    place = re.sub(r"^((?:down|up)_modules[.][0-9]+[.]2)[.]", r"\1.conv.", place)
    return place.replace(".conv1.", ".blocks.0.").replace(".conv2.", ".blocks.1.")


def _why_left_out(name: str) -> str | None:
    if name.startswith(BUFFERS):
        return "statistics, which become normalizers"
    return next((why for end, why in _LEFT_OUT.items() if name.endswith(end)), None)


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
    counted = name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))
    return not counted and _why_left_out(name) is None


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
