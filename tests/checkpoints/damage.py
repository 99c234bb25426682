"""Change safetensors files, among them those that carry facts as JSON in their metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Damage = Callable[[Path], None]
Facts = dict[str, Any]


def edit(
    tensors: Callable[[dict[str, Tensor]], object] | None = None,
    facts: Callable[[Facts], object] | None = None,
    metadata: Callable[[Facts], dict[str, str] | None] | None = None,
) -> Damage:
    """Write the file again with other tensors, facts or metadata."""

    def damage(path: Path) -> None:
        content = load_file(path)
        with safe_open(path, "pt") as file:
            ((key, text),) = file.metadata().items()
        known = json.loads(text)
        if tensors is not None:
            tensors(content)
        if facts is not None:
            facts(known)
        written = {key: json.dumps(known)} if metadata is None else metadata(known)
        save_file(content, path, written)

    return damage


def edit_tensors(name: str, change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Write a file of a checkpoint directory again with other tensors."""

    def damage(directory: Path) -> None:
        tensors = load_file(directory / name)
        change(tensors)
        save_file(tensors, directory / name)

    return damage
