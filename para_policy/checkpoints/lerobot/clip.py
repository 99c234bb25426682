"""Sizes of the CLIP towers in a LeRobot checkpoint.

Shapes of the weights tell nearly all. Heads and activation they do not: those follow from the name
of one of OpenAI's models, or stand in the `config.json` of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from para_policy.checkpoints.files import read_json, summarise
from para_policy.checkpoints.hub import snapshot
from para_policy.errors import CheckpointError
from para_policy.networks.config import ClipSize

_OPENAI = "openai/clip-vit-"
_HEAD = 64
"""Channels of a head in all of OpenAI's models."""

_HEADS = {"vision": 12, "text": 8}
"""Of Hugging Face's configurations that do not say."""


def clip_size(
    weights: Mapping[str, Tensor], prefix: str, name: str, kind: Literal["vision", "text"]
) -> ClipSize:
    """Size of the tower whose weights begin with `prefix`.

    Args:
        name: of the model that it was made from: a local directory, or one of the Hub.

    Raises:
        CheckpointError: if weights are missing, nothing is found under the name, or such a tower
            cannot be built.
    """
    wide, width = shape(weights, f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)
    layer = re.compile(re.escape(prefix) + r"encoder[.]layers[.]([0-9]{1,4})[.]")
    count = len({found[1] for weight in weights if (found := layer.match(weight))})
    try:
        return ClipSize(
            hidden_size=width,
            intermediate_size=wide,
            num_hidden_layers=count,
            **(_published(name, kind) or {"num_attention_heads": max(width // _HEAD, 1)}),
        )
    except ValidationError as error:
        raise CheckpointError(f"the {kind} tower '{name}': {summarise(error)}") from error


def shape(weights: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """Shape of a weight, which must be there with so many axes.

    Raises:
        CheckpointError: otherwise.
    """
    if name not in weights or weights[name].ndim != ndim:
        found = f"has shape {tuple(weights[name].shape)}" if name in weights else "is missing"
        raise CheckpointError(
            f"'{name}' {found}; expected a weight with {ndim} axes, as of Hugging Face's CLIP: "
            "copy the checkpoint again"
        )
    return tuple(weights[name].shape)


def _published(name: str, kind: str) -> dict[str, Any]:
    """What the model's own configuration says; nothing for OpenAI's, which are all alike."""
    if not os.path.isdir(name) and name.startswith(_OPENAI):
        return {}
    folder = Path(name) if os.path.isdir(name) else snapshot(name, ["config.json"])
    content = read_json(folder / "config.json")
    tower = content.get(f"{kind}_config", content)
    if not isinstance(tower, dict):
        raise CheckpointError(f"'{folder / 'config.json'}' is no configuration of CLIP")
    kept = {key: tower[key] for key in ("hidden_act", "layer_norm_eps") if key in tower}
    return {"num_attention_heads": tower.get("num_attention_heads", _HEADS[kind]), **kept}
