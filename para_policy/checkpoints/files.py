"""Files of a checkpoint, one at a time: tensors and JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from para_policy.errors import CheckpointError, shown
from para_policy.files import replace

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


# Files of real policies stay far below; what is read of them takes up to 15 times their size.
_MOST_JSON = 2**24
_MOST_KEYS = 20
_KEY = 80
_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


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
        _check_header(path)
        # Copies: what is mapped would change with a file that is overwritten in place.
        tensors = {name: value.clone() for name, value in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' is truncated or no safetensors file ({error}); copy the checkpoint again"
        ) from error
    for name, value in tensors.items():
        if value.dtype not in _DTYPES:
            raise CheckpointError(
                f"'{path}' holds {shown(name)} as {value.dtype}; expected plain numbers, such as "
                "torch.float32"
            )
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if finite and broken:
        raise CheckpointError(f"'{path}' holds NaN or infinite values in {shown(broken[:3])}")
    return tensors


def _check_header(path: Path) -> None:
    """Names, shapes and metadata, a JSON document that is read whole."""
    with path.open("rb") as file:
        _check_size(path, int.from_bytes(file.read(8), "little"))


def _check_size(path: Path, size: int) -> None:
    if _MOST_JSON < size <= path.stat().st_size:
        raise CheckpointError(
            f"'{path}' holds {size} bytes of JSON; expected at most {_MOST_JSON}: it is damaged, or "
            "no file of a policy"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: if it is missing, no JSON, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing from the checkpoint")
    _check_size(path, path.stat().st_size)
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


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the hash of weights by name, whatever file or object holds them, on whatever device.

    Floating-point numbers count as float32, which is what networks are made with.
    """
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        plain = value.detach().cpu()
        plain = plain.float() if plain.is_floating_point() else plain
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def arrays_sha256(arrays: Iterable[np.ndarray]) -> str:
    """Return the hash of the values of several arrays, in single precision."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return digest.hexdigest()


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one step; errors are those of `files.replace`."""

    def write(unfinished: Path) -> None:
        try:
            save_file(dict(tensors), unfinished, metadata)
        except SafetensorError as error:  # what the operating system said, as text
            raise OSError(str(error)) from error

    replace(path, write)


def summarise(error: ValidationError, root: str = "configuration") -> str:
    """One line that names the wrong keys of a pydantic error; `root` names the whole.

    Alternatives whose tag is empty have no place of their own in a name.
    """
    found = wrong_keys(error)
    keys = [
        f"{'.'.join(str(part)[:_KEY] for part in item['loc'] if part != '') or root}: {item['msg']}, "
        f"got {shown(item['input'])}"
        for item in found[:_MOST_KEYS]
    ]
    more = len(found) - len(keys)
    return "; ".join(keys) + (f"; and {more} more" if more else "")


def wrong_keys(error: ValidationError) -> list[ErrorDetails]:
    """What pydantic found, without what only follows from it: defaults that it could not compute,
    and lists that are too short once their wrong items are left out."""
    found = error.errors()
    above = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}

    def follows(item: ErrorDetails) -> bool:
        kind = item["type"]
        return kind == "default_factory_not_called" or (
            kind == "too_short" and item["loc"] in above
        )

    return [item for item in found if not follows(item)]
