"""Native checkpoint: a directory of JSON and safetensors. Nothing is ever unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from para_policy.checkpoints.changes import read_changed
from para_policy.checkpoints.checkpoint import Checkpoint, match
from para_policy.checkpoints.files import read_json, read_tensors, sha256, summarise, write_tensors
from para_policy.errors import CheckpointError, InputError
from para_policy.files import check_output_folder, write_text
from para_policy.policies.build import state_shapes
from para_policy.policies.config import FORMAT_VERSION, PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
NORMALIZER_FILE = "normalizer.safetensors"


def save_checkpoint(
    directory: str | Path,
    config: PolicyConfig,
    model_state: dict[str, Tensor],
    normalizers: dict[str, LinearNormalizer],
    *,
    half: bool = False,
) -> None:
    """Write a native checkpoint; each file appears whole or not at all.

    Args:
        half: store the weights as float16, each rounded to eleven bits, in half the space.

    Raises:
        InputError: if a file cannot be written, or a weight is too large for float16.
    """
    directory = Path(directory)
    check_output_folder(directory)
    statistics = {
        f"{name}.{key}": value.cpu().clone()  # one tensor may serve two features
        for name, normalizer in normalizers.items()
        for key, value in (("scale", normalizer.scale), ("offset", normalizer.offset))
    }
    dtype = torch.float16 if half else torch.float32
    model = {key: _stored(key, value, dtype) for key, value in model_state.items()}
    write_tensors(directory / MODEL_FILE, model)
    write_tensors(directory / NORMALIZER_FILE, statistics)
    text = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    write_text(directory / CONFIG_FILE, text)


def _stored(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    stored = value.to(dtype)
    most = torch.finfo(dtype).max
    if value.isfinite().all() and not stored.isfinite().all():
        raise InputError(
            f"weight {name!r} is as large as {float(value.abs().max()):g}; expected at most {most:g}, the "
            f"largest number of {dtype}: store the weights as float32"
        )
    return stored


def read_native(
    directory: str | Path, changes: Mapping[str, Any] = MappingProxyType({})
) -> Checkpoint:
    """Read a native checkpoint.

    Args:
        changes: other values of keys of `config.json`, see `changes.read_changed`.

    Raises:
        CheckpointError: if a file is missing or truncated, or does not fit the configuration.
    """
    directory = Path(directory)
    config = read_config(directory, changes)
    path = directory / MODEL_FILE
    state, report = match(path, read_tensors(path), state_shapes(config))
    # Files may hold them in half precision, to be small; what computes has single precision.
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
    return Checkpoint(config, state, _read_normalizers(directory, config), report, path)


def read_config(
    directory: str | Path, changes: Mapping[str, Any] = MappingProxyType({})
) -> PolicyConfig:
    """Read and validate `config.json`, with other values of some keys."""
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at '{directory}': {CONFIG_FILE} is missing; "
            f"expected a directory with {CONFIG_FILE}, {MODEL_FILE} and {NORMALIZER_FILE}"
        )
    return read_changed(path, read_json(path), changes, lambda content: _config(path, content))


def _config(path: Path, content: Mapping[str, Any]) -> PolicyConfig:
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has format_version {version!r}, this release reads {FORMAT_VERSION}; "
            "update para_policy or convert the checkpoint"
        )
    try:
        return PolicyConfig.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}") from error


def checkpoint_hash(directory: str | Path) -> str:
    """Return the sha256 of the weights, which calibrations and results are bound to."""
    path = Path(directory) / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing from the checkpoint")
    return sha256(path)


def _read_normalizers(directory: Path, config: PolicyConfig) -> dict[str, LinearNormalizer]:
    path = directory / NORMALIZER_FILE
    statistics = read_tensors(path)
    widths = {
        name: 3 if name in config.cameras else math.prod(shape)
        for name, shape in config.inputs.items()
    }
    normalizers = {}
    for name, width in {**widths, "action": config.action_dim}.items():
        for key in (f"{name}.scale", f"{name}.offset"):
            if key not in statistics:
                raise CheckpointError(
                    f"'{path}' has no '{key}'; without statistics actions are meaningless"
                )
            if statistics[key].shape != (width,):
                raise CheckpointError(
                    f"'{path}': '{key}' has shape {tuple(statistics[key].shape)}, config.json says ({width},)"
                )
        if (statistics[f"{name}.scale"] == 0).any():
            raise CheckpointError(
                f"'{path}': '{name}.scale' holds 0; every coordinate needs a range"
            )
        normalizers[name] = LinearNormalizer(
            statistics[f"{name}.scale"], statistics[f"{name}.offset"]
        )
    return normalizers
