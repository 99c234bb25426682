"""Writer of rosbag2 bags that `ros2 bag info` and `ros2 bag play` of Humble to Kilted understand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rclpy.duration import Duration
from rclpy.qos import QoSProfile

from para_policy.errors import InputError, ParaPolicyError
from para_policy.extras import extra
from para_policy.ros.bags.storages import WRITE_ERRORS, BagStorage, Mcap, Sqlite

with extra("bags", "writing a bag"):
    from rosbags.interfaces import (
        Connection,
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

Storage = Literal["mcap", "sqlite3"]
_PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
_STORAGES: dict[Storage, Callable[[Writer], BagStorage]] = {"mcap": Mcap, "sqlite3": Sqlite}


class BagEndedError(ParaPolicyError):
    """The disk is full, or broken: the bag is closed and takes nothing more."""


class BagWriter:
    """A new bag in the folder `path`, which must not exist.

    The format is version 8: version 9 writes the quality of service in a way that Humble cannot read,
    and newer readers know both.

    Attributes:
        counts: messages written, by topic.
    Raises:
        InputError: when the folder exists or cannot be made.
    """

    def __init__(self, path: Path, storage: Storage) -> None:
        if path.exists():
            raise InputError(f"output {path} exists; a bag is never overwritten, choose another")
        self.counts: dict[str, int] = {}
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, Connection] = {}
        self._writer = Writer(path, version=8, storage_plugin=_PLUGINS[storage])
        self._closed = False
        try:
            self._writer.open()
            self._storage = _STORAGES[storage](self._writer)
        except WRITE_ERRORS as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot make the bag {path}: {reason}") from error

    def add_topic(self, topic: str, kind: str, offered: Sequence[QoSProfile]) -> None:
        """Make room for a topic; a second call changes nothing.

        Args:
            offered: quality of service of each of its publishers.
        Raises:
            InputError: when the type is none of the standard ones.
            BagEndedError: as `write`.
        """
        if topic in self._connections:
            return
        if kind not in self._types.fielddefs:
            raise InputError(f"topic {topic} carries {kind}, which is no standard message type")
        with self._until_full():
            self._connections[topic] = self._writer.add_connection(
                topic,
                kind,
                typestore=self._types,
                offered_qos_profiles=[_as_rosbags(qos) for qos in offered],
            )
        self.counts[topic] = 0

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Add a message; `data` are its exact bytes, as a raw subscription delivers them.

        Raises:
            BagEndedError: when the disk is full. The bag holds what had been flushed then, or a
                little less where its end needs the room.
        """
        with self._until_full():
            self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1

    def flush(self) -> None:
        """Hand what was written to the operating system, so that it outlives this process.

        Raises:
            BagEndedError: as `write`.
        """
        with self._until_full():
            self._storage.flush()

    def close(self) -> None:
        """Write index and metadata; a second call does nothing.

        Raises:
            BagEndedError: as `write`.
        """
        if self._closed:
            return
        with self._until_full():
            self._storage.flush()
            self._writer.close()
        self._closed = True

    @contextmanager
    def _until_full(self) -> Iterator[None]:
        try:
            yield
        except WRITE_ERRORS as error:
            self._closed = True
            whole = self._end()
            reason = getattr(error, "strerror", None) or str(error)
            left = f"{sum(self._writer.counts.values())} messages are in it and can be read"
            if not whole:
                left = "it could not be closed; `para-policy replay` reads what is in it"
            raise BagEndedError(
                f"the bag {self._writer.path} ends here: {reason}; {left}; "
                "free space, or record to another disk"
            ) from error

    def _end(self) -> bool:
        """Close the bag with what there is room for; whether that was possible."""
        while True:
            try:
                if not self._storage.take_back():
                    self._writer.abort()
                    return False
                self._writer.close()
                return True
            except WRITE_ERRORS:
                continue  # with less


def _as_rosbags(qos: QoSProfile) -> Qos:
    """The same in the words of rosbags, whose numbers are those of rmw."""
    return Qos(
        history=QosHistory(int(qos.history)),
        depth=qos.depth,
        reliability=QosReliability(int(qos.reliability)),
        durability=QosDurability(int(qos.durability)),
        deadline=_time(qos.deadline),
        lifespan=_time(qos.lifespan),
        liveliness=QosLiveliness(int(qos.liveliness)),
        liveliness_lease_duration=_time(qos.liveliness_lease_duration),
        avoid_ros_namespace_conventions=qos.avoid_ros_namespace_conventions,
    )


def _time(duration: Duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 10**9))
