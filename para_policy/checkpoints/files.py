"""Files of a checkpoint, one at a time: reading and writing."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from para_policy.errors import CheckpointError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def read_tensors(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        finite: refuse NaN and infinite values.

    Raises:
        CheckpointError: if it is missing or truncated, or holds such values.
    """
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing from the checkpoint")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' is truncated or no safetensors file ({error}); copy the checkpoint again"
        ) from error
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if finite and broken:
        raise CheckpointError(f"'{path}' holds NaN or infinite values in {broken[:3]}")
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: if it is missing, no JSON, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing from the checkpoint")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' holds a {type(content).__name__}, not a JSON object")
    return content


def sha256(path: Path) -> str:
    """Return the hash of a file, which calibrations and results are bound to."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arrays_sha256(arrays: Iterable[np.ndarray]) -> str:
    """Return the hash of the values of several arrays, in single precision."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return digest.hexdigest()


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    write(temporary)
    os.replace(temporary, path)


def summarise(error: ValidationError, root: str = "configuration") -> str:
    """One line that names every wrong key of a pydantic error; `root` names the whole.

    Alternatives whose tag is empty have no place of their own in a name.
    """
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'] if part != '') or root}: {item['msg']}, "
        f"got {reprlib.repr(item['input'])}"
        for item in wrong_keys(error)
    )


def wrong_keys(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, without what only follows from it: defaults that it could not compute,
    and lists that are too short once their wrong items are left out."""
    found = error.errors()
    places = [item["loc"] for item in found]

    def follows(item: ErrorDetails) -> bool:
        loc = item["loc"]
        inside = any(len(place) > len(loc) and place[: len(loc)] == loc for place in places)
        return item["type"] == "default_factory_not_called" or (
            item["type"] == "too_short" and inside
        )

    return [item for item in found if not follows(item)]
