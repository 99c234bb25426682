"""PCM weights beside a checkpoint: `<checkpoint>_pcm/<scheduler>_<steps>_<splitting>.safetensors`.

Each file is bound to the base weights and the noise schedule that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from para_policy.errors import CheckpointError
from para_policy.formats.files import read_tensors, replace, summarise
from para_policy.policies.consistency import Change, PicardConsistencyModel

FORMAT_VERSION = 1
_UP, _DOWN = ".up", ".down"
_AGAIN = "run para-policy distill again, or delete the file"


class _Facts(BaseModel):
    """What a file says about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int
    weights_sha256: str
    noise_scheduler: dict[str, Any]
    scheduler: str
    steps: int
    splitting: str
    rounds: int
    stride: int


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
    """Write the weights, half precision (they only make a guess), and return the path."""
    path = Path(directory) / file_name(model.scheduler, model.steps, model.splitting)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = _Facts(
        format_version=FORMAT_VERSION,
        weights_sha256=weights_sha256,
        noise_scheduler=dict(noise_scheduler),
        **{
            key: getattr(model, key)
            for key in ("scheduler", "steps", "splitting", "rounds", "stride")
        },
    )
    tensors: dict[str, Tensor] = {}
    for name, change in model.changes.items():
        if isinstance(change, tuple):
            tensors[name + _UP], tensors[name + _DOWN] = change
        else:
            tensors[name] = change
    half = {name: value.detach().cpu().half().contiguous() for name, value in tensors.items()}
    replace(path, lambda file: save_file(half, file, {"pcm": facts.model_dump_json()}))
    return path


def read_consistencies(
    directory: str | Path, weights_sha256: str, noise_scheduler: Mapping[str, Any]
) -> dict[tuple[str, int, str], PicardConsistencyModel]:
    """Read all PCM weights of a checkpoint, by scheduler, step count and splitting.

    Raises:
        CheckpointError: for a file that is broken, or was trained on other weights or another noise
            schedule.
    """
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        facts = _facts(path)
        for what, given, expected in (
            ("weights", facts.weights_sha256, weights_sha256),
            ("noise_scheduler", facts.noise_scheduler, dict(noise_scheduler)),
        ):
            if given != expected:
                raise CheckpointError(
                    f"'{path}' was trained on other {what} ({given}, here {expected}); {_AGAIN}"
                )
        if min(facts.rounds, facts.stride) < 1:
            raise CheckpointError(
                f"'{path}': rounds {facts.rounds} and stride {facts.stride} must be at least 1; {_AGAIN}"
            )
        key = (facts.scheduler, facts.steps, facts.splitting)
        found[key] = PicardConsistencyModel(
            *key,
            facts.rounds,
            facts.stride,
            _changes(path),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
    return found


def _facts(path: Path) -> _Facts:
    read_tensors(path)  # whole and finite?
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})["pcm"])
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"'{path}' has format_version {version!r}, this release reads {FORMAT_VERSION}; {_AGAIN}"
            )
        return _Facts.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}; {_AGAIN}") from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"'{path}' holds no PCM weights ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error


def _changes(path: Path) -> dict[str, Change]:
    tensors = read_tensors(path)
    changes: dict[str, Change] = {}
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
