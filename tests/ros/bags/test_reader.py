"""Bags that are not as one would make them: of two minds about quality of service, or a topic's type."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from std_msgs.msg import Float64, Int64

from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.writer import BagWriter, Storage
from tests.ros.bags.rewriting import TYPES

TOPIC = "/joint"


def offered(bag: Path) -> str:
    """The quality of service in metadata.yaml, as text."""
    return str(_topic(yaml.safe_load((bag / "metadata.yaml").read_text()))["offered_qos_profiles"])


def edit(bag: Path, profiles: str) -> None:
    path = bag / "metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    _topic(metadata)["offered_qos_profiles"] = profiles
    path.write_text(yaml.safe_dump(metadata))


def _topic(metadata: dict[str, dict[str, list[dict[str, dict[str, object]]]]]) -> dict[str, object]:
    (topic,) = metadata["rosbag2_bagfile_information"]["topics_with_message_count"]
    return topic["topic_metadata"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("edited", ["no profile", "best effort"])
def test_another_quality_of_service_in_the_metadata_hides_no_message(
    tmp_path: Path, storage: Storage, edited: str
) -> None:
    bag = tmp_path / "bag"
    writer = BagWriter(bag, storage)
    reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    writer.add_topic(TOPIC, "std_msgs/msg/Float64", [reliable])
    for number in range(3):
        writer.write(TOPIC, number, serialize_message(Float64(data=float(number))))
    writer.close()
    before = offered(bag)
    edit(bag, "" if edited == "no profile" else before.replace("reliability: 1", "reliability: 2"))
    assert offered(bag) != before
    assert [found.message.data for found in Bag(bag).messages({TOPIC: "std_msgs/msg/Float64"})] == [
        0.0,
        1.0,
        2.0,
    ]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("closed", [True, False])
def test_a_topic_of_two_types_is_read_by_type(
    tmp_path: Path, storage: StoragePlugin, closed: bool
) -> None:
    """Two nodes published them; a subscription of one type never hears the other."""
    sent = [Float64(data=1.0), Int64(data=2), Float64(data=3.0), Int64(data=4)]
    kinds = ["std_msgs/msg/Float64", "std_msgs/msg/Int64"]
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        made = [writer.add_connection(TOPIC, kind, typestore=TYPES) for kind in kinds]
        for time_ns, message in enumerate(sent):
            writer.write(made[time_ns % 2], time_ns, serialize_message(message))
    if not closed:
        (tmp_path / "bag" / "metadata.yaml").unlink()
    bag = Bag(tmp_path / "bag")
    assert set(bag.topics[TOPIC]) == set(kinds)
    for kind, expected in zip(kinds, (sent[::2], sent[1::2]), strict=True):
        assert [found.message for found in bag.messages({TOPIC: kind})] == expected
