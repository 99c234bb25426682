"""Writer of rosbag2 bags that `ros2 bag info` and `ros2 bag play` of Humble to Kilted understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rclpy.qos import QoSProfile

from para_policy.errors import InputError
from para_policy.extras import extra

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
_FOREVER = QosTime(2147483647, 4294967295)


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
        try:
            self._writer.open()
        except OSError as error:
            raise InputError(f"cannot make the bag {path}: {error.strerror}") from error

    def add_topic(self, topic: str, kind: str, qos: QoSProfile) -> None:
        """Make room for a topic that is offered with `qos`; a second call changes nothing.

        Raises:
            InputError: when the type is none of the standard ones.
        """
        if topic in self._connections:
            return
        if kind not in self._types.fielddefs:
            raise InputError(f"topic {topic} carries {kind}, which is no standard message type")
        self._connections[topic] = self._writer.add_connection(
            topic, kind, typestore=self._types, offered_qos_profiles=[_as_rosbags(qos)]
        )
        self.counts[topic] = 0

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Add a message; `data` are its exact bytes, as a raw subscription delivers them."""
        self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1

    def flush(self) -> None:
        """Hand what was written to the operating system, so that it outlives this process."""
        storage: Any = self._writer.storage
        if hasattr(storage, "conn"):
            storage.conn.commit()
            return
        if storage.chunk.msgs:
            storage.close_chunk()
        storage.bio.flush()

    def close(self) -> None:
        """Write index and metadata."""
        self._writer.close()


def _as_rosbags(qos: QoSProfile) -> Qos:
    """The same in the words of rosbags, whose numbers are those of rmw."""
    return Qos(
        history=QosHistory(int(qos.history)),
        depth=qos.depth,
        reliability=QosReliability(int(qos.reliability)),
        durability=QosDurability(int(qos.durability)),
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
