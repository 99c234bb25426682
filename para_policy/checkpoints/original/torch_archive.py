"""Archive that `torch.save` writes, a zip file, and the tensors that lie in it.

A file may have been forged. Every number in it is checked against the bytes that are there before
a tensor is made of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo, is_zipfile

import torch
from torch import Tensor

from para_policy.errors import CheckpointError, shown

_MOST_DIMENSIONS = 64
_MOST_COPIES = 3
"""Weights may have two names, or three; tensors that take more are an attack on the memory."""
_SLACK = 2**20
_MOST_LISTED = 2**22
"""Bytes: more than 40 000 records."""
_LONGEST_END = 2**16 + 22 + 20 + 56


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever a forged file makes libraries stumble over into a `CheckpointError`."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"'{path}' is damaged or forged ({type(error).__name__}: {error}); copy it again"
        ) from error


class Sealed:
    """What a pickle may hold, but not change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise CheckpointError(f"the pickle sets attributes of {type(self).__name__}")


@dataclass(frozen=True, eq=False)
class Archive(Sealed):
    """The open file: records under one folder, none of them compressed.

    Attributes:
        root: the folder, with a slash at its end.
        sizes: bytes of each record, by full name.
        readings: of its storages.
    """

    path: Path
    file: ZipFile
    root: str
    sizes: dict[str, int]
    readings: Readings = field(default_factory=lambda: Readings(), repr=False)

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Raises:
        CheckpointError: if the file is missing, damaged, or not as `torch.save` writes it.
        """
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at '{path}': expected a .ckpt file")
        with refusing(path):
            if not is_zipfile(path):
                raise CheckpointError(
                    f"'{path}' is truncated or no file of torch.save from PyTorch 1.6 or newer; copy "
                    "it again, or load it with the PyTorch that wrote it and save it with a newer one"
                )
            _check_directory(path)
            file = ZipFile(path)
            archive = cls(path, file, *_checked(path, file.infolist()))
            record = archive.root + "byteorder"
            if record in archive.sizes and file.read(record) != b"little":
                raise CheckpointError(
                    f"'{path}' was saved on a big-endian machine; save it again on another"
                )
            return archive

    def read(self, record: str) -> bytes:
        """Raises:
        CheckpointError: if there is no such record.
        """
        if self.root + record not in self.sizes:
            raise CheckpointError(f"'{self.path}' lacks its record {shown(record)}; copy it again")
        return self.file.read(self.root + record)


def _check_directory(path: Path) -> None:
    """Refuse an archive that lists records without end: zipfile makes an object of each.

    The size of the list stands in the record at the end of the file, or in the longer one before
    that if a locator of 20 bytes lies between; zipfile looks in the same places.
    """
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _LONGEST_END), os.SEEK_END)
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    size = tail[end + 12 : end + 16]
    if tail[max(end - 20, 0) :].startswith(b"PK\x06\x07"):
        size = tail[max(end - 36, 0) : max(end - 28, 0)]
    if int.from_bytes(size, "little") > _MOST_LISTED:
        raise CheckpointError(f"'{path}' is forged: it lists more records than a policy has")


@dataclass
class Readings:
    """What was read of an archive's storages.

    Attributes:
        records: the storages: many tensors may be views of one.
        held: bytes of them together.
        copied: bytes of the tensors that were made of them.
    """

    records: dict[str, bytearray] = field(default_factory=dict)
    held: int = 0
    copied: int = 0


def _checked(path: Path, records: list[ZipInfo]) -> tuple[str, dict[str, int]]:
    """Root and sizes of the records, if they are what `torch.save` writes."""
    sizes = {record.filename: record.file_size for record in records}
    roots = [name.removesuffix("data.pkl") for name in sizes if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0] + "constants.pkl" in sizes:
        raise CheckpointError(f"'{path}' is no file of torch.save: expected one data.pkl in it")
    packed = any(record.compress_type != ZIP_STORED for record in records)
    if packed or len(sizes) < len(records) or sum(sizes.values()) > path.stat().st_size:
        raise CheckpointError(
            f"'{path}' is forged: torch.save neither compresses nor repeats records"
        )
    return roots[0], sizes


@dataclass(frozen=True, eq=False)
class Storage(Sealed):
    """Numbers in a record, of which tensors are views."""

    archive: Archive
    key: str
    dtype: torch.dtype
    numel: int

    def read(self) -> Tensor:
        """All numbers, (numel,): shared by all who ask."""
        record, readings = f"data/{self.key}", self.archive.readings
        if record not in readings.records:
            readings.records[record] = bytearray(self.archive.read(record))
            readings.held += len(readings.records[record])
        data = readings.records[record]
        if len(data) != self.numel * self.dtype.itemsize:
            raise CheckpointError(
                f"'{self.archive.path}' is damaged or forged: its record {shown(record)} has "
                f"{len(data)} bytes, not {self.numel} numbers of {self.dtype}"
            )
        return torch.frombuffer(data, dtype=self.dtype)


@dataclass(frozen=True, eq=False)
class StoredTensor(Sealed):
    """A tensor that is read when it is asked for."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """Copy it into memory.

        Raises:
            CheckpointError: if the file is damaged, or the tensor does not lie in its storage.
        """
        path = self.storage.archive.path
        with refusing(path):
            if not self._lies_in_storage():
                raise CheckpointError(
                    f"'{path}' is forged: a tensor reaches beyond record "
                    f"{shown(f'data/{self.storage.key}')}"
                )
            if 0 in self.shape:
                return torch.empty(self.shape, dtype=self.storage.dtype)
            view = self.storage.read().as_strided(self.shape, self.stride, self.offset)
            readings = self.storage.archive.readings
            readings.copied += view.nbytes
            if readings.copied > _MOST_COPIES * readings.held + _SLACK:
                raise CheckpointError(
                    f"'{path}' is forged: its tensors are views of the same numbers again and again"
                )
            return view.clone(memory_format=torch.contiguous_format)

    def _lies_in_storage(self) -> bool:
        if not len(self.shape) == len(self.stride) <= _MOST_DIMENSIONS:
            return False
        numbers = (*self.shape, *self.stride, self.offset, self.storage.numel)
        if not all(type(number) is int and number >= 0 for number in numbers):
            return False
        steps = zip(self.shape, self.stride, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        # A view may repeat its numbers without end; weights never do.
        once = math.prod(self.shape) <= self.storage.numel
        return 0 in self.shape or (once and last < self.storage.numel)
