#!/usr/bin/env bash
# rosbags 0.11: whole numbers for a float field are written as their bits, and come back as 5e-324.
#
# A message field float64[] wants a NumPy array of float64. np.array([1, 2]) is one of int64, of as many
# bytes: serialize_cdr neither converts nor refuses it, the bag is whole, and every reader gets joint
# positions of 5e-324 rad. An array of float32, which has another size, is refused; a list, too. So it
# hits exactly the positions that happen to be whole numbers, as in tests and home poses. rclpy turns such
# an array into floats when it is assigned.
#
# Seen: [1 2] in, [5e-324 1e-323] out; float64 [1. 2.] out unchanged; float32: ValueError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_JAZZY)
NAME = "sensor_msgs/msg/JointState"
JointState, Header = store.types[NAME], store.types["std_msgs/msg/Header"]
Time = store.types["builtin_interfaces/msg/Time"]


def through_a_bag(position: np.ndarray) -> np.ndarray:
    none = np.zeros(0)
    path = Path(f"{position.dtype}")
    header = Header(stamp=Time(sec=1, nanosec=0), frame_id="")
    message = JointState(header, ["a", "b"], position, none, none)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/joint_states", NAME, typestore=store)
        writer.write(connection, 1, store.serialize_cdr(message, NAME))
    with Reader(path) as reader:
        ((_, _, raw),) = reader.messages()
    return store.deserialize_cdr(raw, NAME).position


floats, integers = through_a_bag(np.array([1.0, 2.0])), through_a_bag(np.array([1, 2]))
print(f"float64 [1. 2.] -> {floats}; int64 [1 2] -> {integers}")
assert floats.tolist() == [1.0, 2.0]
assert integers.tolist() == [5e-324, 1e-323]
try:
    through_a_bag(np.array([1.0, 2.0], np.float32))
except ValueError as error:
    print(f"float32: ValueError: {error}")
else:
    raise AssertionError("float32 was written")
PY
