"""Storages of rosbags: what reached the disk, and how a bag is taken back to it when the disk is full."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol, cast

from para_policy.extras import extra

with extra("bags", "writing a bag"):
    from rosbags.rosbag2 import Writer
    from rosbags.rosbag2.storage_mcap import PendingChunk

WRITE_ERRORS = (OSError, sqlite3.Error)
"""What writing raises on a full disk, beyond a quota or the largest size of a file, or on a broken disk."""


class BagStorage(Protocol):
    def flush(self) -> None:
        """Hand what was written to the operating system, so that it outlives this process."""

    def take_back(self) -> bool:
        """Return to the last moment at which all was written, or to an earlier one when called again.

        Returns:
            False when there is none left.
        """


@dataclass(frozen=True, slots=True)
class _Mark:
    """A bag when all of it was written.

    Attributes:
        counts: of the messages, by connection.
        last_ns: time of the last one.
        size: of the file, bytes.
        chunks: of messages in the file.
    """

    counts: tuple[int, ...]
    last_ns: int
    size: int = 0
    chunks: int = 0


def _restore_counts(writer: Writer, mark: _Mark) -> None:
    """Connections that came later have no message."""
    for index, number in enumerate(writer.counts):
        writer.counts[number] = mark.counts[index] if index < len(mark.counts) else 0
    writer.max_timestamp = mark.last_ns


class Mcap:
    """A file of chunks of messages; index and summary stand at its end, once it is closed.

    They need room, too: on a full disk the last chunks make way for them, more with each try.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._storage = cast(Any, writer.storage)  # shortening is no part of its interface
        self._storage.bio.flush()
        self._marks = [self._mark()]
        self._step = 0

    def flush(self) -> None:
        if self._storage.chunk.msgs:
            self._storage.close_chunk()
        self._storage.bio.flush()
        self._marks.append(self._mark())

    def take_back(self) -> bool:
        if self._step and len(self._marks) == 1:
            return False
        del self._marks[max(1, len(self._marks) - self._step) :]
        self._step = max(1, 2 * self._step)
        self._shorten(self._marks[-1])
        return True

    def _mark(self) -> _Mark:
        counts = tuple(self._writer.counts.values())
        storage = self._storage
        return _Mark(counts, storage.message_end_time, storage.bio.tell(), len(storage.chunks))

    def _shorten(self, mark: _Mark) -> None:
        storage = self._storage
        storage.bio.raw.close()  # leaves out what is in its buffer and cannot be written
        storage.bio = storage.path.open("r+b")
        storage.bio.truncate(mark.size)
        storage.bio.seek(mark.size)
        del storage.chunks[mark.chunks :]
        storage.chunk = PendingChunk(2**63 - 1, 0, BytesIO(), defaultdict(list))
        _restore_counts(self._writer, mark)
        storage.channel_stats |= self._writer.counts
        storage.message_end_time = mark.last_ns
        self._writer.storage = storage


class Sqlite:
    """A database: what was not committed is rolled back, which also frees the room for its end."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._connection = cast(Any, writer.storage).conn
        self._committed: _Mark | None = _Mark((), 0)

    def flush(self) -> None:
        self._connection.commit()
        self._committed = _Mark(tuple(self._writer.counts.values()), self._writer.max_timestamp)

    def take_back(self) -> bool:
        if self._committed is None:
            return False
        mark, self._committed = self._committed, None
        self._connection.rollback()
        _restore_counts(self._writer, mark)
        return True
