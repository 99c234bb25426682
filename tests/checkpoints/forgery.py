"""Files as `torch.save` writes them, around any pickle."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile


def forge(path: Path, program: bytes, records: Mapping[str, bytes] | None = None) -> Path:
    """Write a file as torch.save does around a pickle of one's own."""
    with ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for name, content in (records or {}).items():
            file.writestr(f"archive/{name}", content)
    return path


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Persistent:
    """Is pickled as a reference to something outside the pickle."""

    def __init__(self, pid: Any) -> None:
        self.pid = pid


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Persistent) else None


def dumps(value: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol).dump(value)
    return file.getvalue()
