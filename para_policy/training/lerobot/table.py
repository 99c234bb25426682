"""Columns of parquet files as numpy arrays, through pyarrow (extra `lerobot`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from para_policy.errors import DataError
from para_policy.extras import extra
from para_policy.memory import check_available

with extra("lerobot", "reading a LeRobotDataset"):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq


class Table:
    """Rows that lie in several parquet files, one after the other; columns are read when asked for.

    Attributes:
        lengths: rows of each file.

    Raises:
        DataError: if a file is damaged.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        lengths = []
        for path in self._files:
            with _reading(path):
                lengths.append(pq.read_metadata(path).num_rows)
        self.lengths = np.asarray(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def numbers(self, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Column `name` (rows, *shape).

        Raises:
            DataError: if it is missing, holds something else than numbers, or has another shape.
        """
        check_available(f"{len(self)} rows of {name}", 8 * len(self) * math.prod(shape))
        parts = [_numbers(column, shape, path, name) for path, column in self._columns(name)]
        return np.concatenate(parts) if parts else np.empty((0, *shape))

    def integers(self, name: str) -> np.ndarray:
        """Column `name` (rows,), int64.

        Raises:
            DataError: if it is missing, or holds something else.
        """
        values = self.numbers(name)
        if len(values) and values.dtype.kind not in "iu":
            raise DataError(
                f"{name} is {values.dtype}; expected whole numbers: copy the data set again"
            )
        return values.astype(np.int64)

    def stored(self, name: str, rows: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """Files that are stored in column `name`, such as images: (index in `rows`, content).

        They come in the order of the table. Raises DataError if one is missing.
        """
        ends = np.cumsum(self.lengths)
        which = np.searchsorted(ends, rows, side="right")
        for k in np.unique(which):
            path = self._files[k]
            column = _column(path, name)
            if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
                raise DataError(f"'{path}': {name} is {column.type}; expected stored images")
            contents = pc.struct_field(column, "bytes")
            for index in np.flatnonzero(which == k):
                content = contents[int(rows[index] - (ends[k] - self.lengths[k]))].as_py()
                if not isinstance(content, bytes):
                    raise DataError(
                        f"'{path}' holds no image in row {rows[index]} of {name}; write the data set "
                        "again with the images embedded, as LeRobot does"
                    )
                yield int(index), content

    def _columns(self, name: str) -> Iterator[tuple[Path, pa.ChunkedArray]]:
        for path in self._files:
            yield path, _column(path, name)


def _column(path: Path, name: str) -> pa.ChunkedArray:
    with _reading(path), pq.ParquetFile(path) as file:
        held = file.schema_arrow.names
        if held.count(name) != 1:
            raise DataError(f"'{path}' has no column {name}; it has {held}")
        return file.read(columns=[name]).column(name)


def _numbers(column: pa.ChunkedArray, shape: tuple[int, ...], path: Path, name: str) -> np.ndarray:
    with _reading(path):
        flat = column.combine_chunks()
        flat = flat.storage if isinstance(flat, pa.ExtensionArray) else flat
        fitting = flat.null_count == 0
        for size in shape:
            if _is_list(flat.type):
                fitting &= bool((pc.list_value_length(flat).to_numpy() == size).all())
                flat = flat.flatten()
                fitting &= flat.null_count == 0
            else:  # LeRobot stores shape (1,) without a list
                fitting &= size == 1
        number = pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)
        if not fitting or not (number or pa.types.is_boolean(flat.type)):
            raise DataError(
                f"'{path}': {name} is {column.type} with empty or unequal rows; expected numbers of "
                f"shape {shape}"
                if number
                else f"'{path}': {name} is {column.type}; expected numbers of shape {shape}"
            )
        return flat.to_numpy(zero_copy_only=False).reshape(len(column), *shape)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"'{path}' is truncated or no parquet file ({' '.join(str(error).split())[:200]}); copy "
            "the data set again"
        ) from error
