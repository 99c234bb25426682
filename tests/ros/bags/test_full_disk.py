"""The recorder on a disk that is really full: write(2) fails, by a small file system or a file size limit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from rclpy.qos import QoSProfile
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import JointState

from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.writer import BagEndedError, BagWriter, Storage
from para_policy.ros.messages.conversions import ns_to_stamp
from tests.full_disk import full_disk
from tests.ros.bags.test_recorder import INPUTS, recorder_command, recorder_environment
from tests.ros.graph import Graph

SIZE = 1 << 20
"""Bytes; the shared memory of Fast DDS counts as files, too, and must fit."""
TOPIC = "/joint_states"
LIMITS = {
    # The bag is copied out, as the file system ends with the process.
    "disk": (
        f"unshare --user --map-root-user --mount bash -c 'mount -t tmpfs -o size={SIZE} none "
        '"$0" && "${@:2}" --output "$0/bag"; code=$?; cp -r "$0/bag" "$1"; exit $code\''
    ),
    "file size": f'bash -c \'ulimit -f {SIZE // 1024}; exec "${{@:2}}" --output "$1/bag"\'',
}
REASONS = {
    ("disk", "mcap"): "No space left on device",
    ("disk", "sqlite3"): "database or disk is full",
    ("file size", "mcap"): "File too large",
    ("file size", "sqlite3"): "disk I/O error",
}


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    ]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def numbered(number: int) -> JointState:
    """8 kB."""
    message = JointState(name=["agent_x"], position=[float(number)] * 1000)
    message.header.stamp = ns_to_stamp(10**9 + number)
    return message


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("limit", sorted(LIMITS))
def test_the_recorder_ends_with_one_line_and_a_whole_bag(
    graph: Graph, domain_id: int, tmp_path: Path, limit: str, storage: str
) -> None:
    if limit == "disk" and not can_mount():
        pytest.skip("no file system may be mounted here")
    (tmp_path / "mount").mkdir()
    places = [str(tmp_path / "mount"), str(tmp_path)]
    options = ["--inputs-file", str(INPUTS), "--storage", storage]
    process = subprocess.Popen(
        [*shlex.split(LIMITS[limit]), *places, *recorder_command(*options)],
        env=recorder_environment(domain_id),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        speaker = graph.talk(JointState, "joint_states")
        sent = 0
        while process.poll() is None and sent < 2000:
            sent += 1
            speaker.publish(numbered(sent))
            graph.spin_for(0.02)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2, errors
    # It also warns of what nobody publishes in this test.
    (line,) = (line for line in errors.strip().splitlines() if not line.startswith("[WARN]"))
    assert f"ends here: {REASONS[limit, storage]}" in line

    bag = Bag(tmp_path / "bag")
    assert not bag.incomplete
    numbers = [
        int(recorded.message.position[0])
        for recorded in bag.messages({TOPIC: "sensor_msgs/msg/JointState"})
    ]
    assert len(numbers) * 8000 > 0.3 * SIZE  # at most the last second is missing
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert f"{len(numbers)} messages are in it" in line
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == len(numbers)


def payload(number: int) -> bytes:
    """CDR of a std_msgs/msg/Int64, which fills a chunk of its own with little more than its index."""
    return b"\x00\x01\x00\x00" + number.to_bytes(8, "little")


def fill(path: Path, storage: Storage, every: int = 1) -> str:
    """Why the bag took no more of the messages, of which so many were flushed at a time."""
    writer = BagWriter(path, storage)
    writer.add_topic("/count", "std_msgs/msg/Int64", [QoSProfile(depth=1)])
    with pytest.raises(BagEndedError) as caught:
        write_until_full(writer, every)
    writer.close()  # has happened, and is no error
    return str(caught.value)


def write_until_full(writer: BagWriter, every: int) -> None:
    for number in range(10**6):
        writer.write("/count", 10**9 + number, payload(number))
        if number % every == 0:
            writer.flush()


def test_the_last_messages_make_room_for_a_long_index(tmp_path: Path) -> None:
    with full_disk(SIZE // 4):
        words = fill(tmp_path / "bag", "mcap")
    bag = Bag(tmp_path / "bag")
    assert not bag.incomplete
    found = list(bag.messages({"/count": "std_msgs/msg/Int64"}))
    assert [recorded.message.data for recorded in found] == list(range(len(found)))
    assert f"{len(found)} messages are in it" in words
    # With its index and summary a message takes less than 0.5 kB.
    assert len(found) > SIZE // 4 // 500
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(summary.chunk_indexes) == len(found)
    assert summary.statistics.message_end_time == found[-1].time_ns


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_disk_that_is_full_at_once_is_told(tmp_path: Path, storage: Storage) -> None:
    with full_disk(64):
        try:
            words = fill(tmp_path / "bag", storage)
        except ValueError as error:  # not even begun
            words = str(error)
    assert "cannot make the bag" in words or "could not be closed" in words


def test_a_database_keeps_what_was_committed(tmp_path: Path) -> None:
    with full_disk(SIZE // 4):
        words = fill(tmp_path / "bag", "sqlite3", every=100)
    found = list(Bag(tmp_path / "bag").messages({"/count": "std_msgs/msg/Int64"}))
    numbers = np.array([recorded.message.data for recorded in found])
    assert (numbers == np.arange(len(found))).all()
    assert f"{len(found)} messages are in it" in words
    assert len(found) > 1000


def test_nothing_but_the_bag_is_left(tmp_path: Path) -> None:
    with full_disk(SIZE // 4):
        fill(tmp_path / "bag", "mcap")
    assert sorted(os.listdir(tmp_path / "bag")) == ["bag.mcap", "metadata.yaml"]
