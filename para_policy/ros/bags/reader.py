"""Reader of rosbag2 bags, whoever wrote them, one message after the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from para_policy.errors import DataError
from para_policy.extras import extra
from para_policy.ros.messages.types import decode, message_class

with extra("bags", "reading a bag"):
    from mcap.records import Channel, Chunk, McapRecord, Message, Schema
    from mcap.stream_reader import StreamReader, breakup_chunk
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader, ReaderError
    from rosbags.rosbag2.reader import DirectoryReader

_SUFFIXES = (".mcap", ".db3")

Topics = Mapping[str, Collection[str]]
"""Types by topic."""


@dataclass(frozen=True)
class Recorded:
    """A message, and when it was received in nanoseconds of the recorder's clock."""

    topic: str
    time_ns: int
    message: Any


class Bag:
    """A bag: a folder, or its single .mcap or .db3 file. Nothing of it is kept in memory.

    A bag whose recorder was killed, or of which the end is missing, is read as far as it goes.

    Attributes:
        topics: types of each topic; of more than one where nodes have not agreed.
        incomplete: why not everything can be there; empty when it is.
    Raises:
        DataError: when there is no bag, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.incomplete = ""
        self._scans = False
        self._files = [path]
        if not path.exists():
            raise DataError(f"there is no bag '{path}'; give the folder that holds metadata.yaml")
        try:
            self.topics = _by_topic(_pairs(path))
        except Exception as error:  # rosbags raises what YAML, sqlite and struct raise
            self._files = _storage_files(path)
            self.incomplete = f"'{path}' was not closed, or its end is missing ({error})"
            self.topics = self._salvaged_topics()

    def messages(self, topics: Mapping[str, str]) -> Iterator[Recorded]:
        """The messages of some topics in the order of their receipt.

        Args:
            topics: type of each. Messages of another type are passed over, as ROS brings a node only
                those of the type that it has asked for.

        Raises:
            DataError: when a message is damaged.
        """
        classes = {topic: message_class(kind) for topic, kind in topics.items()}
        for file in self._files:
            found = _scan(file) if self._scans else _read(file, topics)
            for topic, kind, time_ns, data in found:
                if topics.get(topic) == kind:
                    yield Recorded(topic, time_ns, decode(data, classes[topic], topic))

    def _salvaged_topics(self) -> Topics:
        self._scans = all(file.suffix == ".mcap" for file in self._files)
        found: set[tuple[str, str]] = set()
        for file in self._files:
            if self._scans:
                found |= {(topic, kind) for topic, kind, *_ in _scan(file)}
                continue
            _roll_back(file)
            try:
                found |= _pairs(file)
            except Exception as error:
                raise DataError(
                    f"'{file}' cannot be read ({error}); try sqlite3 '{file}' .recover"
                ) from error
        if not found:
            raise DataError(f"{self.incomplete}; no message can be read")
        return _by_topic(found)


def _by_topic(pairs: Iterable[tuple[str, str]]) -> Topics:
    found: dict[str, set[str]] = {}
    for topic, kind in pairs:
        found.setdefault(topic, set()).add(kind)
    return found


def _pairs(path: Path) -> set[tuple[str, str]]:
    """Topics with their types."""
    with Reader(path) as reader:
        return {(connection.topic, connection.msgtype) for connection in reader.connections}


def _read(path: Path, topics: Mapping[str, str]) -> Iterator[tuple[str, str, int, bytes]]:
    """Topic, type, time and bytes of each message of some topics."""
    try:
        with Reader(path) as reader:
            wanted = [c for c in _connections(reader) if topics.get(c.topic) == c.msgtype]
            for connection, time_ns, data in reader.messages(wanted) if wanted else ():
                yield connection.topic, connection.msgtype, time_ns, bytes(data)
    except (ReaderError, sqlite3.Error, OSError, ArithmeticError) as error:
        raise DataError(f"bag '{path}' cannot be read to its end: {error}") from error


def _connections(reader: Reader) -> list[Connection]:
    """The connections as the files have them: rosbags finds none whose QoS is another in metadata.yaml."""
    if not isinstance(reader.storage, DirectoryReader):
        return reader.connections
    return [connection for file in reader.storage.storages for connection in file.connections]


def _scan(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    """The same of an MCAP file without index, up to the first part that is not whole."""
    schemas: dict[int, str] = {}
    channels: dict[int, Channel] = {}
    with path.open("rb") as file:
        try:
            for record in _records(file):
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    kind = schemas[channel.schema_id]
                    yield channel.topic, kind, record.log_time, record.data
        except Exception:  # whatever struct and decompression say where the bytes end
            return


def _records(file: BinaryIO) -> Iterator[McapRecord]:
    for record in StreamReader(file, emit_chunks=True).records:
        if not isinstance(record, Chunk):
            yield record
        elif record.compression or len(record.data) == record.uncompressed_size:
            yield from breakup_chunk(record)


def _storage_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    if not files:
        raise DataError(f"folder '{path}' holds no bag: there is no {' or '.join(_SUFFIXES)} file")
    return files


def _roll_back(file: Path) -> None:
    """Let sqlite undo a transaction that a killed recorder has left half written."""
    if not file.with_name(f"{file.name}-journal").exists():
        return
    try:
        connection = sqlite3.connect(file)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.close()
    except sqlite3.Error as error:
        raise DataError(
            f"'{file}' was left half written and cannot be repaired ({error}); make the folder "
            "writable, or copy the bag"
        ) from error
