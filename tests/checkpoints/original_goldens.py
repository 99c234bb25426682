"""What the goldens of the original project leave out, because both sides can make it anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch

from para_policy.checkpoints.original.torch_archive import StoredTensor
from para_policy.checkpoints.original.unpickle import read_pickle
from tests.networks.goldens.recipe import fill, images

GOLDENS = Path(__file__).parent / "goldens"
_EMA_SEED = 2
_CONSTANT = ("_dummy_variable", "temperature", "pos_x", "pos_y", "mask", "num_batches_tracked")


def is_weight(name: str) -> bool:
    """Whether the recipe fills this tensor of a policy."""
    return name.startswith(("model.", "obs_encoder.")) and not name.endswith(_CONSTANT)


def observations(batch: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """(batch, *shape) each: images (To, 3, H, W) in [0, 1], vectors (To, D) in [0, 4]."""
    made = {}
    for seed, name in enumerate(sorted(shapes)):
        steps, *rest = shapes[name]
        if len(rest) == 3:
            value = (images(batch * steps, *rest[1:], seed).clamp(-1, 1) + 1) / 2
        else:
            value = 4 * torch.rand(
                (batch * steps, *rest), generator=torch.Generator().manual_seed(seed)
            )
        made[name] = value.unflatten(0, (batch, steps)).numpy()
    return made


def checkpoint_without_weights(name: str, folder: Path) -> Path:
    """The checkpoint of a golden; one of images lacks the records of its weights."""
    plain = GOLDENS / f"original_{name}.ckpt"
    if plain.exists():
        return plain
    path = folder / plain.name
    with ZipFile(GOLDENS / f"{plain.name}.zip") as packed, ZipFile(path, "w") as unpacked:
        for record in packed.namelist():
            unpacked.writestr(record, packed.read(record))
    return path


def whole_checkpoint(name: str, folder: Path) -> Path:
    """The checkpoint of a golden; averaged weights that were left out are put back."""
    path = checkpoint_without_weights(name, folder)
    if path.parent == GOLDENS:
        return path
    stored: dict[str, StoredTensor] = read_pickle(path)["state_dicts"]["ema_model"]
    weights = {
        key: torch.empty(tensor.shape, dtype=tensor.storage.dtype)
        for key, tensor in stored.items()
        if is_weight(key)
    }
    fill(weights, _EMA_SEED)
    # Two names may share a storage: as in a network, the one that is filled last stays.
    records = {stored[key].storage.key: weights[key] for key in sorted(weights)}
    with ZipFile(path, "a") as whole:
        root = whole.namelist()[0].partition("/")[0]
        for record, value in records.items():
            whole.writestr(f"{root}/data/{record}", value.numpy().tobytes())
    return path
