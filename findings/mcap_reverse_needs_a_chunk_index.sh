#!/usr/bin/env bash
# mcap 1.6: reverse=True is ignored, without a word, for a file that has no index of chunks.
#
# make_reader(file).iter_messages(reverse=True) gives the newest message first: a cheap way to the last state
# or the last error. A file without chunks, such as those of rosbag2 with the preset "fastwrite", or without
# an index of its chunks is handed to a NonSeekingReader, which can reverse, but is not told to: the same call
# gives the oldest message first.
#
# Seen, with warnings as errors: with an index [3, 2, 1]; without chunks or without their index [1, 2, 3], and
# [3, 2, 1] when one makes the NonSeekingReader oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mcap==1.6.0
cd "$folder"
"$folder/venv/bin/python" -W error - <<'PY'
from io import BytesIO

from mcap.reader import McapReader, NonSeekingReader, make_reader
from mcap.writer import IndexType, Writer

FILES = {
    "with an index": {},
    "no chunks": {"use_chunking": False},
    "no index of chunks": {"index_types": IndexType.MESSAGE},
}


def record(**options: object) -> BytesIO:
    file = BytesIO()
    writer = Writer(file, **options)
    writer.start()
    channel = writer.register_channel(topic="/joint", message_encoding="json", schema_id=0)
    for time in (1, 2, 3):
        writer.add_message(channel, log_time=time, publish_time=time, data=b"0.5")
    writer.finish()
    return BytesIO(file.getvalue())


def times(reader: McapReader) -> list[int]:
    return [message.log_time for _, _, message in reader.iter_messages(reverse=True)]


for name, options in FILES.items():
    made, own = times(make_reader(record(**options))), times(NonSeekingReader(record(**options)))
    print(f"{name}: make_reader {made}, NonSeekingReader {own}")
    assert made == ([1, 2, 3] if options else [3, 2, 1])
    assert own == [3, 2, 1]
PY
