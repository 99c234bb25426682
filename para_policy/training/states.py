"""State folders of a training run: each appears whole or not at all, and is checked when it is read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from para_policy.checkpoints.files import sha256
from para_policy.errors import InputError

KEPT = 2
"""States that a run keeps, so that one is left if the newest is damaged."""

_FACTS_FILE = "state.json"


class Facts(BaseModel):
    """What a state says about itself.

    Attributes:
        step: optimiser steps that were done.
        seconds: that they took.
        files: SHA-256 of every other file of the folder, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    files: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class States:
    """The states `step_00001000/` ... of one run.

    Attributes:
        folder: that holds them.
    """

    folder: Path

    def newest_first(self) -> list[Path]:
        """All of them, whole or not."""
        return sorted(self.folder.glob("step_*"), reverse=True)

    @property
    def unfinished(self) -> Path:
        """Folder of a state that is being written."""
        return self.folder / "unfinished"

    def begin(self) -> None:
        """Make it, empty."""
        shutil.rmtree(self.unfinished, ignore_errors=True)  # of a run that was killed
        self.unfinished.mkdir(parents=True)

    def finish(self, step: int, seconds: float) -> None:
        """Keep it as the state of `step`, and remove what it makes superfluous."""
        files = {path.name: sha256(path) for path in sorted(self.unfinished.iterdir())}
        facts = Facts(step=step, seconds=seconds, files=files)
        (self.unfinished / _FACTS_FILE).write_text(facts.model_dump_json(indent=2) + "\n")
        new = self.folder / f"step_{step:08d}"
        shutil.rmtree(new, ignore_errors=True)  # damaged, or it would not be written again
        self.unfinished.rename(new)
        found = self.newest_first()
        later = found.index(new)  # those are damaged, or the run would have gone on from there
        for path in found[:later] + found[later + KEPT :]:
            shutil.rmtree(path, ignore_errors=True)

    def newest(self) -> tuple[Path, Facts]:
        """The newest state that is whole.

        Raises:
            InputError: if there is none.
        """
        damage = []
        for path in self.newest_first():
            try:
                return path, _read(path)
            except ValueError as error:
                damage.append(f"{path.name} {error}")
        raise InputError(
            f"no state in '{self.folder}' is whole ({'; '.join(damage)}); copy one back, or start anew "
            "in another --output"
        )


def _read(path: Path) -> Facts:
    """Raises ValueError, which says what is wrong, unless the state is whole."""
    try:
        facts = Facts.model_validate_json((path / _FACTS_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ValueError(f"has no readable {_FACTS_FILE}") from error
    for name, digest in facts.files.items():
        try:
            found = sha256(path / name)
        except OSError as error:
            raise ValueError(f"lacks {name}") from error
        if found != digest:
            raise ValueError(f"holds a damaged {name}")
    return facts
