#!/usr/bin/env bash
# rosbags 0.11: a topic whose QoS in metadata.yaml differs from that in the bag's files has no messages.
#
# metadata.yaml repeats what the files tell about their topics. Reader and AnyReader list the topics and counts
# of metadata.yaml, and look for each in the files by name, type, hash and offered QoS. If the QoS differs, the
# topic is skipped without a word. Tools that rewrite the files, with the old metadata.yaml put back, and
# people who edit the profiles so that another ROS version plays the bag, make such bags. They are whole for
# `ros2 bag`, whose player takes the QoS from metadata.yaml.
#
# Seen: 3 messages with the file as written; with other profiles or none, message_count, topics and the
# connection still say 3, and none is read, in MCAP and sqlite3. The storage file alone gives all 3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import re
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

MESSAGES, NAME = 3, "std_msgs/msg/Float64"
EVER = QosTime(9223372036, 854775807)
OFFERED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=10,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE,
    deadline=EVER,
    lifespan=EVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=EVER,
    avoid_ros_namespace_conventions=False,
)
EDITS = {
    "as written": lambda text: text,
    "best effort": lambda text: text.replace("reliability: reliable", "reliability: best_effort"),
    "no profile": lambda text: re.sub(r"(offered_qos_profiles:)[^:](?s:.*?)(\n +serial)", r"\1 []\2", text),
}
store = get_typestore(Stores.ROS2_JAZZY)


def read(reader: Reader | AnyReader) -> tuple[int, int]:
    """Messages that the reader counts, in each of three ways, and those that it gives."""
    with reader:
        (counted,) = {
            reader.message_count,
            reader.topics["/joint"].msgcount,
            reader.connections[0].msgcount,
        }
        return counted, len(list(reader.messages()))


for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
    bag = Path(plugin.name)
    with Writer(bag, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection("/joint", NAME, typestore=store, offered_qos_profiles=[OFFERED])
        for i in range(MESSAGES):
            writer.write(connection, i, store.serialize_cdr(store.types[NAME](data=0.5), NAME))
    metadata = bag / "metadata.yaml"
    written = metadata.read_text()
    for edit, change in EDITS.items():
        changed = change(written)
        assert (changed == written) == (edit == "as written")
        metadata.write_text(changed)
        counted, given = read(AnyReader([bag]))
        print(f"{plugin.name}, {edit}: {counted} counted, {given} read")
        assert (counted, given) == read(Reader(bag))
        assert (counted, given) == (MESSAGES, MESSAGES if edit == "as written" else 0)
    (file,) = (path for path in bag.iterdir() if path != metadata)
    assert read(Reader(file)) == (MESSAGES, MESSAGES)
PY
