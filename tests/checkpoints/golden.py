"""What LeRobot wrote and computed for a small policy: read from `goldens/`, written as a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints.goldens.make_lerobot import weights

GOLDENS = Path(__file__).parent / "goldens"


@dataclass(frozen=True)
class Golden:
    """What LeRobot wrote and computed for one case."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, folder: str) -> dict[str, Tensor]:
        prefix = f"{folder}/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def model(self, seed: int = 0) -> dict[str, Tensor]:
        """Content of model.safetensors."""
        return {**weights(self.facts["shapes"], seed), **self.part("model")}

    def save(self, directory: Path, seed: int = 0) -> Path:
        """Write the directory that LeRobot's `save_pretrained` wrote."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in self.facts["files"].items():
            (directory / name).write_text(text)
        files: dict[str, dict[str, Tensor]] = {"model.safetensors": self.model(seed)}
        for place, value in self.part("file").items():
            name, key = place.split("/")
            files.setdefault(name, {})[key] = value
        for name, tensors in files.items():
            save_file(tensors, directory / name)
        return directory


def read_golden(case: str) -> Golden:
    path = GOLDENS / f"lerobot_{case}.safetensors"
    with safe_open(path, "pt") as file:
        return Golden(json.loads(file.metadata()["golden"]), load_file(path))


def save(case: str, directory: Path, seed: int = 0) -> Path:
    """Write the directory that LeRobot's `save_pretrained` wrote for a case."""
    return read_golden(case).save(directory, seed)
