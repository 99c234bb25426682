"""Reader of the original Diffusion Policy replay buffer (a zarr v2 group)."""

from __future__ import annotations

import warnings
from collections.abc import Set
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from para_policy.errors import DataError
from para_policy.extras import extra

_EXPECTED = "expected a zarr group with data/<array> of equal length and meta/episode_ends"


class ReplayBuffer:
    """Demonstrations laid out one after the other; arrays are read when they are asked for.

    Attributes:
        control_hz: None: the format does not say.

    Raises:
        MissingPackageError: if zarr is not installed.
        DataError: if the folder is missing, is no zarr group, or has another layout.
    """

    control_hz: float | None = None

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(
                f"no data set at '{self.path}'; expected the folder of a LeRobotDataset or of a replay "
                "buffer (zarr), or the name of a LeRobotDataset on the Hugging Face Hub, OWNER/NAME"
            )
        with extra("train", "reading demonstrations"):
            import zarr
        try:
            self._group: Any = zarr.open_group(str(self.path), mode="r")
        except Exception as error:
            raise DataError(f"'{self.path}' is not a zarr group ({error}); {_EXPECTED}") from error
        self._check_layout()

    @cached_property
    def episode_ends(self) -> np.ndarray:
        """(episodes,) int64, exclusive end of each episode."""
        return np.asarray(self._read("meta/episode_ends"), dtype=np.int64)

    def __len__(self) -> int:
        """Number of recorded steps."""
        return int(self.episode_ends[-1])

    @property
    def names(self) -> Set[str]:
        """Of all arrays."""
        return set(self._group["data"].array_keys())

    def array(self, name: str) -> np.ndarray:
        """Return `data/<name>` (steps, ...).

        Raises:
            DataError: if there is no such array, or its chunks cannot be decoded.

        Warns:
            UserWarning: if chunks are absent. zarr leaves out those that hold the fill value only, so
                that a chunk that was lost looks the same.
        """
        if name not in self._group["data"]:
            raise DataError(
                f"'{self.path}' has no data/{name}; it holds {sorted(self.names)}: name one of them in "
                "the section data of the training configuration"
            )
        return self._read(f"data/{name}")

    def frames(self, name: str, steps: np.ndarray | None = None) -> np.ndarray:
        """Return frames of a camera (n, height, width, 3), of all steps or of those in `steps`."""
        frames = self.array(name)
        return frames if steps is None else frames[steps]

    def _check_layout(self) -> None:
        data = self._group.get("data")
        if not hasattr(data, "array_keys") or "meta/episode_ends" not in self._group:
            found = sorted(self._group.keys())
            raise DataError(f"'{self.path}' holds {found}; {_EXPECTED}")
        ends = self.episode_ends
        whole = self._group["meta/episode_ends"].dtype.kind in "iu"
        if not whole or ends.ndim != 1 or ends.size == 0 or (np.diff(ends, prepend=0) <= 0).any():
            raise DataError(
                f"'{self.path}': meta/episode_ends must be increasing integers, got shape {ends.shape}"
            )
        for name, array in data.arrays():
            if array.shape[:1] != (len(self),):
                raise DataError(
                    f"'{self.path}': data/{name} has shape {array.shape}, episode_ends says {len(self)}"
                )

    def _read(self, key: str) -> np.ndarray:
        array = self._group[key]
        absent = f"{array.nchunks - array.nchunks_initialized} of {array.nchunks} chunks of {key}"
        if array.nchunks_initialized < array.nchunks:
            if array.metadata.fill_value is None:
                raise DataError(
                    f"'{self.path}': {absent} are missing, and no fill value stands for them; copy "
                    "the data set again"
                )
            warnings.warn(
                f"'{self.path}': {absent} are not stored and read as {array.fill_value}: zarr leaves "
                "out chunks of nothing else; if the data set was copied, compare the copy",
                stacklevel=3,
            )
        try:
            return np.asarray(array[:])
        except Exception as error:
            raise DataError(
                f"'{self.path}': cannot decode {key} ({error}); the archive is damaged"
            ) from error
