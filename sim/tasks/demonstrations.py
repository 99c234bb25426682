"""Demonstrations from a simulator on disk: which run made them, and the replay buffer for training."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.extras import extra
from para_policy.files import make_folder, replace, write_text

Demonstration = dict[str, NDArray[Any]]
"""Of one episode: every input and `action`, each (steps, ...)."""

_DAMAGES = (BadZipFile, EOFError, RuntimeError, ValueError)
"""What numpy and zipfile raise for a file that was cut off or changed."""


def check_settings(output: Path, settings: Mapping[str, Any], made: Sequence[str]) -> None:
    """Note in a new output what its episodes depend on.

    Args:
        made: what will be written anew there.

    Raises:
        InputError: if the output was begun with other settings, or holds what is not of this command.
    """
    path = output / "settings.json"
    if not path.exists():
        for name in made:
            if (output / name).exists():
                raise InputError(
                    f"'{output / name}' was not written by this command, which would make it anew: "
                    "choose another output"
                )
        write_text(path, json.dumps(settings, indent=2) + "\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' does not say how the episodes beside it were made ({error}); choose another output"
        ) from error
    if not isinstance(found, dict):
        found = {}
    names = (name for name in {**found, **settings} if found.get(name) != settings.get(name))
    if changed := [f"{name} {found.get(name)}, now {settings.get(name)}" for name in names]:
        raise InputError(
            f"output {output} was begun with {'; '.join(changed)}: choose another output, or go on "
            "with what it was begun with"
        )


def check_packages() -> None:
    """Raise MissingPackageError where `write_replay_buffer` would; call before the long work."""
    with extra("train", "writing demonstrations"):
        import zarr  # noqa: F401


def save_episodes(path: Path, arrays: Mapping[str, Any]) -> None:
    """Keep what was played in a file, which appears whole or not at all."""

    def write(part: Path) -> None:
        with part.open("wb") as file:  # numpy adds a suffix to a path that has none
            np.savez(file, **arrays)

    replace(path, write)


def load_episodes(path: Path) -> dict[str, NDArray[Any]] | None:
    """What `save_episodes` kept; None, so that it is played anew, if it is not there or damaged."""
    try:
        with np.load(path) as stored:
            return dict(stored)
    except FileNotFoundError:
        return None
    except _DAMAGES as error:
        warnings.warn(f"'{path}' is damaged ({error}) and is made anew", stacklevel=2)
        return None


def write_replay_buffer(path: Path, shown: Sequence[Demonstration]) -> None:
    """A zarr group with data/NAME (steps, ...) for each array, all episodes one after the other, and
    meta/episode_ends, as the original project has it."""
    with extra("train", "writing demonstrations"):
        import zarr
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    for name in shown[0]:
        group.create_array(f"data/{name}", data=np.concatenate([one[name] for one in shown]))
    ends = np.cumsum([len(one["action"]) for one in shown])
    group.create_array("meta/episode_ends", data=ends)


def make_anew(path: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder of ours in place of a former one: there may be more episodes now."""
    shutil.rmtree(path, ignore_errors=True)
    make_folder(path, fill)
