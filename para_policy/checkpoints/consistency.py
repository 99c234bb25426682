"""PCM weights beside a checkpoint: `<checkpoint>_pcm/<scheduler>_<steps>_<splitting>.safetensors`.

Each file is bound to the base weights and the noise schedule that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from para_policy.checkpoints.files import read_tensors, summarise, write_tensors
from para_policy.errors import CheckpointError, InputError
from para_policy.files import check_output_folder
from para_policy.policies.consistency import Change, PicardConsistencyModel
from para_policy.samplers import SplittingName

FORMAT_VERSION = 2
_READ = (1, FORMAT_VERSION)
"""The first one knows no `informed`."""
_UP, _DOWN = ".up", ".down"
_AGAIN = "run para-policy distill again, or delete the file"


class _Facts(BaseModel):
    """What a file says about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    weights_sha256: str
    noise_scheduler: dict[str, Any]
    scheduler: str = Field(min_length=1)
    steps: int = Field(ge=1)
    splitting: SplittingName
    rounds: int = Field(ge=1)
    stride: int = Field(ge=1)
    informed: bool = False


def folder(checkpoint: str | Path) -> Path:
    """Where the PCM weights of a checkpoint are looked for: beside it."""
    path = Path(checkpoint).resolve()
    return path.with_name(f"{path.name}_pcm")


def file_name(scheduler: str, steps: int, splitting: str) -> str:
    return f"{scheduler}_{steps}_{splitting}.safetensors"


def save_consistency(
    directory: str | Path,
    model: PicardConsistencyModel,
    weights_sha256: str,
    noise_scheduler: Mapping[str, Any],
) -> Path:
    """Write the weights, half precision (they only make a guess), and return the path.

    Raises:
        CheckpointError: if half precision cannot hold them; nothing is written.
        InputError: if the file cannot be written.
    """
    path = Path(directory) / file_name(model.scheduler, model.steps, model.splitting)
    check_output_folder(path.parent)
    facts = _Facts(
        format_version=FORMAT_VERSION,
        weights_sha256=weights_sha256,
        noise_scheduler=dict(noise_scheduler),
        **{
            key: getattr(model, key)
            for key in ("scheduler", "steps", "splitting", "rounds", "stride", "informed")
        },
    )
    tensors: dict[str, Tensor] = {}
    for name, change in model.changes.items():
        if isinstance(change, tuple):
            tensors[name + _UP], tensors[name + _DOWN] = change
        else:
            tensors[name] = change
    half = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    broken = [name for name, value in half.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"PCM weights hold NaN, infinity or values beyond half precision in {broken[:3]}; "
            "train with a smaller learning rate"
        )
    write_tensors(path, half, {"pcm": facts.model_dump_json()})
    return path


def read_consistencies(
    directory: str | Path,
    weights_sha256: str,
    noise_scheduler: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> dict[tuple[str, int, str], PicardConsistencyModel]:
    """Read all PCM weights of a checkpoint, by scheduler, step count and splitting.

    Args:
        shapes: of the weights that may change, see `policies.consistency.changeable`.

    Raises:
        CheckpointError: for a file that is broken, was trained on other weights or another noise
            schedule, or does not fit the network; or for two files for the same solve.
    """
    found: dict[tuple[str, int, str], PicardConsistencyModel] = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        try:
            tensors = read_tensors(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {_AGAIN}") from error
        facts = _facts(path)
        for what, given, expected in (
            ("weights", facts.weights_sha256, weights_sha256),
            ("noise_scheduler", facts.noise_scheduler, dict(noise_scheduler)),
        ):
            if given != expected:
                raise CheckpointError(
                    f"'{path}' was trained on other {what} ({given}, here {expected}); {_AGAIN}"
                )
        key = (facts.scheduler, facts.steps, facts.splitting)
        if path.name != file_name(*key):
            raise CheckpointError(
                f"'{path}' was trained for {key}; it must be named {file_name(*key)}, "
                "so that there is one file for each solve"
            )
        model = PicardConsistencyModel(
            *key,
            facts.rounds,
            facts.stride,
            _changes(path, tensors),
            hashlib.sha256(path.read_bytes()).hexdigest(),
            facts.informed,
        )
        try:
            model.check(shapes)
        except InputError as error:
            raise CheckpointError(f"'{path}': {error}; {_AGAIN}") from error
        found[key] = model
    return found


def _facts(path: Path) -> _Facts:
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})["pcm"])
        version = content["format_version"]
        if version not in _READ:
            raise CheckpointError(
                f"'{path}' has format_version {version!r}, this release reads "
                f"{' and '.join(map(str, _READ))}; {_AGAIN}"
            )
        return _Facts.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}; {_AGAIN}") from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' holds no PCM weights ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error


def _changes(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    alone = [
        name
        for name in tensors
        if name.endswith(_DOWN) and name[: -len(_DOWN)] + _UP not in tensors
    ]
    if alone:
        raise CheckpointError(f"'{path}': {alone[0]!r} has no {_UP!r} factor; {_AGAIN}")
    for name, value in tensors.items():
        if name.endswith(_UP):
            weight = name.removesuffix(_UP)
            down = tensors.get(weight + _DOWN, torch.empty(0))
            if value.ndim != 2 or down.ndim != 2 or value.shape[1] != down.shape[0]:
                raise CheckpointError(
                    f"'{path}': factors of {weight!r} are {tuple(value.shape)} and "
                    f"{tuple(down.shape)}; expected (out, rank) and (rank, in); {_AGAIN}"
                )
            changes[weight] = (value, down)
        elif not name.endswith(_DOWN):
            changes[name] = value
    return changes
