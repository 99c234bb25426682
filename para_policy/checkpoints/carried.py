"""A checkpoint that travels: its files as bytes, for processes that do not see its directory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from para_policy.checkpoints import consistency

_SUFFIXES = {".json", ".safetensors"}


@dataclass(frozen=True)
class CarriedCheckpoint:
    """What a policy is loaded from, calibration and PCM weights included.

    Attributes:
        name: of the directory.
        files: contents by the path from the parent of that directory.
    """

    name: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, directory: Path) -> CarriedCheckpoint:
        """Read it. Raises OSError if a file cannot be read."""
        directory = directory.resolve()
        return cls(
            directory.name,
            {
                str(path.relative_to(directory.parent)): path.read_bytes()
                for folder in (directory, consistency.folder(directory))
                for path in sorted(folder.rglob("*"))
                if path.suffix in _SUFFIXES
            },
        )

    @contextmanager
    def unpacked(self) -> Iterator[Path]:
        """Its directory on this machine, which is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="para_policy-") as parent:
            for name, content in self.files.items():
                path = Path(parent, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield Path(parent, self.name)
