"""Change a safetensors file that carries facts as JSON in its metadata."""

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
