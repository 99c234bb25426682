"""Bags that differ from a recorded one in a known way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.qos import QoSProfile
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from para_policy.ros.bags.writer import BagWriter, Storage

TYPES = get_typestore(Stores.ROS2_JAZZY)
Change = Callable[[str, int, Any], Any]
"""From topic, number in the topic and message to the message; None leaves it out."""


def rewritten(bag: Path, copy: Path, change: Change) -> Path:
    """A copy of `bag` in the other storage, as somebody else's recorder would write it."""
    with (
        Reader(bag) as reader,
        Writer(copy, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer,
    ):
        made: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for connection, time_ns, data in reader.messages():
            topic, kind = connection.topic, connection.msgtype
            numbers[topic] = numbers.get(topic, -1) + 1
            message = change(topic, numbers[topic], TYPES.deserialize_cdr(data, kind))
            if message is None:
                continue
            if topic not in made:
                made[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(made[topic], time_ns, TYPES.serialize_cdr(message, kind))
    return copy


def without(*topics: str) -> Change:
    return lambda topic, _, message: None if topic in topics else message


def unclosed(bag: Path, folder: Path, storage: Storage, flush_after: int) -> Path:
    """What lies on the disk when a recorder is killed that was flushed after so many infos."""
    infos = 0
    with Reader(bag) as reader:
        writer = BagWriter(folder / "open", storage)
        for connection in reader.connections:
            writer.add_topic(connection.topic, connection.msgtype, [QoSProfile(depth=1)])
        for connection, time_ns, data in reader.messages():
            writer.write(connection.topic, time_ns, data)
            infos += connection.topic.endswith("/chunk_info")
            if infos == flush_after:
                writer.flush()
                infos += 1
        killed = Path(shutil.copytree(folder / "open", folder / "killed"))
        writer.close()
    return killed
