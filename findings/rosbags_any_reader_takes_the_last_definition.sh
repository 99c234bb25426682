#!/usr/bin/env bash
# rosbags 0.11: AnyReader decodes the messages of all its bags by the definition of the last bag.
#
# Each bag holds the definitions of its message types, and AnyReader reads several bags as one. It keeps one
# definition for each name, the last, and compares its hash with that of the last bag only. A type that was
# changed between two recordings, such as fields in another order, is decoded wrongly in all bags but the
# last, without an error when the size fits. Which bag is right depends on the order of the paths.
#
# Seen: velocity 0.5 and effort 9.0 from each bag alone; from both, velocity 9.0 and effort 0.5 from the first
# one, with bags of ROS 1 and of ROS 2, though their connections tell two different hashes.
#
# To read such bags, open one AnyReader for each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

NAME = "example_msgs/msg/Command"
OLD, NEW = "float64 velocity\nfloat64 effort", "float64 effort\nfloat64 velocity"
SENT = {"velocity": 0.5, "effort": 9.0}


def record(path: Path, definition: str) -> Path:
    ros1 = path.suffix == ".bag"
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(definition, NAME))
    writer = Writer1(path) if ros1 else Writer2(path, version=9, storage_plugin=StoragePlugin.MCAP)
    serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
    with writer:
        connection = writer.add_connection("/command", NAME, typestore=store)
        writer.write(connection, 1, serialize(store.types[NAME](**SENT), NAME))
    return path


def read(*paths: Path) -> tuple[dict[str, dict[str, float]], int]:
    """What each bag holds, by its name, and how many hashes of the type there are."""
    found = {}
    with AnyReader(paths) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found[connection.owner.path.name] = {name: getattr(message, name) for name in SENT}
        return found, len({connection.digest for connection in reader.connections})


SWAPPED = {"velocity": 9.0, "effort": 0.5}
for ending in (".bag", ""):
    old, new = (record(Path(name + ending), text) for name, text in {"old": OLD, "new": NEW}.items())
    assert read(old) == ({old.name: SENT}, 1)
    assert read(new) == ({new.name: SENT}, 1)
    for first, last in ((old, new), (new, old)):
        found, hashes = read(first, last)
        print(f"{first.name} and {last.name}, {hashes} hashes: {found}")
        assert found == {first.name: SWAPPED, last.name: SENT} and hashes == 2
PY
