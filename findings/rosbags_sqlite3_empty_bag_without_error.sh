#!/usr/bin/env bash
# rosbags 0.11: a sqlite3 bag whose disk was full for a moment is closed without an error and is empty.
#
# Writer.write() raises when the disk (a quota, the largest size of a file) is full. What was written
# since the bag was opened is one transaction, and none of it outlives that error. But close() works
# if there is room again, and metadata.yaml counts every message that was written before. With MCAP
# the same program keeps the messages.
#
# Seen: 1629 messages written before the error; close: no error; Reader.message_count 1629, messages 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import resource
from pathlib import Path

from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TEXT = b"\x00\x01\x00\x00" + (4000).to_bytes(4, "little") + b"x" * 3999 + b"\0"  # std_msgs/msg/String


def written_counted_read(plugin: StoragePlugin) -> tuple[int, int, int]:
    path = Path(plugin.name.lower())
    writer = Writer(path, version=8, storage_plugin=plugin)
    writer.open()
    store = get_typestore(Stores.ROS2_JAZZY)
    connection = writer.add_connection("/topic", "std_msgs/msg/String", typestore=store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, hard))  # write(2) fails beyond
    written = 0
    try:
        while written < 3000:
            writer.write(connection, written, TEXT)
            written += 1
    except Exception as error:
        print(f"{plugin.name}: write raised {type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # somebody has made room
    writer.close()
    with Reader(path) as reader:
        return written, reader.message_count, sum(1 for _ in reader.messages())


sqlite = written_counted_read(StoragePlugin.SQLITE3)
mcap = written_counted_read(StoragePlugin.MCAP)
print(f"written, in metadata.yaml, read back: sqlite3 {sqlite}, MCAP {mcap}")
assert 0 < sqlite[0] == sqlite[1] < 3000 and sqlite[2] == 0, sqlite
assert 0 < mcap[0] <= mcap[2] < 3000, mcap
PY
