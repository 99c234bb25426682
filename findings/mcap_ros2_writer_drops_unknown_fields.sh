#!/usr/bin/env bash
# mcap-ros2-support 0.6: a field of another name is dropped without a word, and the real one written as 0.
#
# Writer.write_message takes a dictionary. Keys that the message type does not have are ignored, and fields
# that the dictionary lacks get their default, at every depth. Written with the names of ROS 1, a stamp
# {"secs": 1, "nsecs": 2} is time 0, and a joint state with "positions" has none. A text where an array is
# asked for is refused, so one expects names to be checked as well.
#
# Seen: stamp 0.0, position [] from the misspelt dictionary, without a warning; stamp 1.2 s, [0.5] from the
# right one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mcap-ros2-support==0.6.0 mcap==1.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from io import BytesIO

from mcap_ros2.reader import read_ros2_messages
from mcap_ros2.writer import Writer

LINE = "=" * 80
DEFINITION = f"""std_msgs/Header header
string[] name
float64[] position
{LINE}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
{LINE}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""


def read_back(message: dict) -> tuple[float, list[float]]:
    file = BytesIO()
    writer = Writer(file)
    schema = writer.register_msgdef("example_msgs/msg/Joints", DEFINITION)
    writer.write_message("/joints", schema, message)
    writer.finish()
    file.seek(0)
    (found,) = (read.ros_msg for read in read_ros2_messages(file))
    stamp = found.header.stamp
    return stamp.sec + stamp.nanosec / 1e9, list(found.position)


right = read_back({"header": {"stamp": {"sec": 1, "nanosec": 200_000_000}}, "position": [0.5]})
other = read_back({"header": {"stamp": {"secs": 1, "nsecs": 200_000_000}}, "positions": [0.5]})
print(f"stamp and position: right {right}, misspelt {other}")
assert right == (1.2, [0.5])
assert other == (0.0, [])
try:
    read_back({"position": "0.5"})
except ValueError as error:
    print(f"a text for an array: ValueError: {error}")
else:
    raise AssertionError("a text was written as an array")
PY
