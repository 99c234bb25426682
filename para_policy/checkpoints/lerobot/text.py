"""Features of a text, as a `multi_task_dit` of LeRobot sees them.

They are the same for a whole task, so that they are computed once, when the checkpoint is read: the
policy needs neither the text tower nor the tokenizer. The tower is in the checkpoint; the tokenizer is
not, and is found by its name: a local directory, the local cache, or the Hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from para_policy.checkpoints.checkpoint import match
from para_policy.checkpoints.files import read_json, summarise
from para_policy.checkpoints.hub import snapshot
from para_policy.checkpoints.lerobot.clip import clip_size, shape
from para_policy.checkpoints.lerobot.dit import TEXT
from para_policy.checkpoints.lerobot.options import Count, Pipeline, StrictModel
from para_policy.errors import CheckpointError, InputError
from para_policy.extras import extra
from para_policy.networks.clip import ClipText

_TOWER, _PROJECTION = f"{TEXT}text_encoder.text_model.", f"{TEXT}projection."
STEP = "tokenizer_processor"


class _Tokenizer(StrictModel):
    """Settings of the step of the preprocessor, which LeRobot follows."""

    tokenizer_name: str
    max_length: Count
    truncation: bool = True
    padding_side: Literal["right", "left"] = "right"


@torch.no_grad()
def text_features(
    text: str,
    width: int,
    preprocessor: Path,
    model: Path,
    weights: Mapping[str, Tensor],
    encoder: str,
) -> Tensor:
    """What the network is told of `text`: (width,).

    Args:
        preprocessor: `policy_preprocessor.json`, which names the tokenizer.
        model: the file of `weights`, for messages.
        encoder: name of the model that the text tower was made from.

    Raises:
        CheckpointError: if weights are missing, or the tokenizer is not found.
        InputError: for a text that is too long.
        MissingPackageError: if tokenizers is not installed.
    """
    positions = shape(weights, f"{_TOWER}embeddings.position_embedding.weight", 2)[0]
    vocabulary = shape(weights, f"{_TOWER}embeddings.token_embedding.weight", 2)[0]
    size = clip_size(weights, _TOWER, encoder, "text")
    with torch.device("meta"):
        tower = ClipText(size, vocabulary, positions)
    _load(tower, _TOWER, model, weights)
    tokens = _tokens(text, _settings(preprocessor))
    if not 0 < len(tokens) <= positions or max(tokens) >= vocabulary:
        raise InputError(
            f"the text has {len(tokens)} tokens, up to number {max(tokens, default=0)}; the text tower "
            f"takes 1 to {positions}, of {vocabulary}: shorten it, or correct {preprocessor.name}"
        )
    projection = nn.Linear(size.hidden_size, width, device="meta")
    _load(projection, _PROJECTION, model, weights)
    return projection(tower(torch.tensor(tokens)))


def _load(module: nn.Module, prefix: str, model: Path, weights: Mapping[str, Tensor]) -> None:
    """Give a module the weights whose names begin with `prefix`."""
    found = {name: value.float() for name, value in weights.items() if name.startswith(prefix)}
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    state, _ = match(model, found, shapes, rename=lambda name: name.removeprefix(prefix))
    module.load_state_dict(state, assign=True)


def _settings(preprocessor: Path) -> _Tokenizer:
    try:
        steps = Pipeline.model_validate(read_json(preprocessor)).steps
        chosen = [step.config for step in steps if step.registry_name == STEP]
        if len(chosen) != 1:
            raise CheckpointError(
                f"'{preprocessor}' has {len(chosen)} steps '{STEP}'; expected one"
            )
        settings = _Tokenizer.model_validate(chosen[0])
    except ValidationError as error:
        raise CheckpointError(
            f"'{preprocessor}', step '{STEP}': {summarise(error)}; copy the checkpoint again"
        ) from error
    if settings.padding_side == "left":
        raise CheckpointError(
            f"'{preprocessor}' fills texts up on the left, where LeRobot takes the first filling for "
            "the end of the text: its features tell nothing. Set padding_side to right and train again"
        )
    return settings


def _tokens(text: str, settings: _Tokenizer) -> list[int]:
    """Without what a batch is filled up with, which the text cannot see."""
    with extra("text", f"the text {text[:40]!r}"):
        from tokenizers import Tokenizer
    name = settings.tokenizer_name
    folder = Path(name) if os.path.isdir(name) else snapshot(name, ["tokenizer.json"])
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            f"'{folder}' has no tokenizer.json, which the text needs; save the tokenizer {name!r} "
            f"there with transformers, or name another folder in policy_preprocessor.json"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more precise
        raise CheckpointError(f"'{path}' is no tokenizer: {error}") from error
    tokenizer.no_padding()
    if settings.truncation:
        tokenizer.enable_truncation(settings.max_length)
    return list(tokenizer.encode(text).ids)
