"""Reading and writing single files of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from para_policy.errors import CheckpointError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: if it is missing, truncated, or holds NaN or infinite values.
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
    if broken:
        raise CheckpointError(f"'{path}' holds NaN or infinite values in {broken[:3]}")
    return tensors


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    write(temporary)
    os.replace(temporary, path)


def summarise(error: ValidationError, root: str = "configuration") -> str:
    """One line that names every wrong key of a pydantic error; `root` names the whole."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or root}: {item['msg']}"
        for item in error.errors()
    )
