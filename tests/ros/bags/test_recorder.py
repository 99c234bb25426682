"""The recorder: what is in its bags, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosbags.interfaces import QosDurability, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String

from para_policy.cli.record import Record
from para_policy.ros.bags.reader import Bag
from para_policy.ros.bags.recorder import Recorder
from para_policy.ros.bags.topics import RecordedNodes
from para_policy.ros.bags.writer import BagWriter
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.graph import LATCHED
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.messages.input_files import read_inputs
from para_policy.ros.parameters.offline import inputs_of_parameters
from para_policy.terminal import run as run_command
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import Rig

INPUTS = CONFIG / "pusht_inputs.yaml"
JOINTS = {"/joint_states": "sensor_msgs/msg/JointState"}
RUN = "import sys; from para_policy.terminal import run; import tyro; "
RUN += "from para_policy.cli.record import Record; "
RUN += "sys.exit(run(tyro.cli(Record, args=sys.argv[1:])))"


def recorder_command(*arguments: str) -> list[str]:
    """`para-policy record`."""
    return [sys.executable, "-c", RUN, *arguments]


def recorder_environment(domain_id: int) -> dict[str, str]:
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain_id),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }


@contextmanager
def recording(domain_id: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`para-policy record` as a process of its own."""
    process = subprocess.Popen(
        recorder_command(*arguments),
        env=recorder_environment(domain_id),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def joints(number: int) -> JointState:
    message = JointState(name=["agent_x", "agent_y"], position=[float(number), 1.0])
    message.header.stamp = ns_to_stamp(10**9 + number)
    return message


def test_commands_to_several_controllers_are_found_by_who_sends_them(
    graph: Graph, tmp_path: Path
) -> None:
    topics = ["/arm/joint_trajectory", "/gripper/commands"]
    writer = BagWriter(tmp_path / "bag", "mcap")
    graph.add(lambda **options: Recorder(writer, RecordedNodes(), **options))
    graph.add(
        ChunkExecutor,
        joint_names=["shoulder", "finger"],
        command_topics=topics,
        command_outputs=["joint_trajectory", "float64_multi_array"],
        command_sizes=[1, 1],
    )
    graph.probe.create_publisher(Float64MultiArray, "/base/commands", 10)  # of somebody else
    graph.wait(lambda: set(topics) <= set(writer.counts))
    graph.wait(lambda: graph.probe.count_publishers("/base/commands"))
    graph.spin_for(0.5)
    assert "/base/commands" not in writer.counts
    writer.close()


def test_bytes_times_and_quality_of_service_are_kept(graph: Graph, tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    nodes = RecordedNodes(read_inputs(INPUTS))
    recorder = graph.add(lambda **options: Recorder(writer, nodes, **options))
    settings = graph.probe.create_publisher(String, "policy_node/settings", LATCHED)
    settings.publish(String(data="{}"))  # before anybody listens, and no settings message
    speaker = graph.talk(JointState, "joint_states")
    before_ns = recorder.get_clock().now().nanoseconds
    for number in range(20):
        speaker.publish(joints(number))
    graph.wait(lambda: writer.counts.get("/joint_states") == 20)
    graph.wait(lambda: writer.counts.get("/policy_node/settings") == 1)
    after_ns = recorder.get_clock().now().nanoseconds
    writer.close()

    found = list(Bag(tmp_path / "bag").messages(JOINTS))
    assert [recorded.message for recorded in found] == [joints(number) for number in range(20)]
    assert all(before_ns <= recorded.time_ns <= after_ns for recorded in found)
    with Reader(tmp_path / "bag") as reader:
        offered = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
    assert offered["/policy_node/settings"].durability == QosDurability.TRANSIENT_LOCAL
    assert offered["/joint_states"].durability == QosDurability.VOLATILE
    assert offered["/joint_states"].reliability == QosReliability.RELIABLE
    metadata = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    assert (information["version"], information["storage_identifier"]) == (8, "mcap")
    assert information["message_count"] == 21


def test_the_quality_of_service_is_recorded_as_offered(graph: Graph, tmp_path: Path) -> None:
    """Of every publisher; without it `ros2 bag play` offers another, or cannot publish at all."""
    unusual = QoSProfile(
        depth=5,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        deadline=Duration(seconds=0.25),
        lifespan=Duration(seconds=1.5),
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(seconds=2),
    )
    topic = "/joint_states"
    publishers = [graph.probe.create_publisher(JointState, topic, qos) for qos in (unusual, 10)]
    graph.wait(lambda: len(graph.probe.get_publishers_info_by_topic(topic)) == 2)
    writer = BagWriter(tmp_path / "bag", "mcap")
    nodes = RecordedNodes(read_inputs(INPUTS))
    graph.add(lambda **options: Recorder(writer, nodes, **options))
    graph.wait(lambda: all(publisher.get_subscription_count() for publisher in publishers))
    writer.close()

    with Reader(tmp_path / "bag") as reader:
        (connection,) = reader.connections
    offered = {qos.reliability: qos for qos in connection.ext.offered_qos_profiles}
    assert set(offered) == {QosReliability.BEST_EFFORT, QosReliability.RELIABLE}
    found = offered[QosReliability.BEST_EFFORT]
    assert (found.deadline, found.lifespan) == (QosTime(0, 250_000_000), QosTime(1, 500_000_000))
    assert found.liveliness == QosLiveliness.MANUAL_BY_TOPIC
    assert found.liveliness_lease_duration == QosTime(2, 0)
    usual = offered[QosReliability.RELIABLE]
    assert usual.liveliness == QosLiveliness.AUTOMATIC
    assert usual.deadline == usual.lifespan == QosTime(*divmod(2**63 - 1, 10**9))  # rmw: for ever


def test_a_topic_that_appears_later_is_joined(graph: Graph, tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "sqlite3")
    recorder = graph.add(lambda **options: Recorder(writer, RecordedNodes(), **options))
    graph.spin_for(0.3)
    assert not writer.counts
    speaker = graph.talk(Float64MultiArray, "chunk_executor/command")
    speaker.publish(Float64MultiArray(data=[1.0]))
    graph.wait(lambda: writer.counts.get("/chunk_executor/command") == 1)
    assert not recorder.problems
    writer.close()


def test_a_publisher_that_offers_less_and_comes_later_is_heard(
    graph: Graph, tmp_path: Path
) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    nodes = RecordedNodes(read_inputs(INPUTS))
    graph.add(lambda **options: Recorder(writer, nodes, **options))
    first = graph.talk(JointState, "joint_states")
    first.publish(joints(1))
    graph.wait(lambda: writer.counts.get("/joint_states") == 1)
    second = graph.talk(JointState, "joint_states", qos_profile_sensor_data)
    graph.wait(lambda: first.get_subscription_count() > 0)
    before = writer.counts["/joint_states"]

    def both_heard() -> bool:
        first.publish(joints(2))
        second.publish(joints(3))
        return writer.counts["/joint_states"] > before + 4

    graph.wait(both_heard)
    writer.close()
    found = [recorded.message for recorded in Bag(tmp_path / "bag").messages(JOINTS)]
    assert all(joints(number) in found for number in (1, 2, 3))


def test_what_a_replay_needs_and_nobody_publishes_is_told(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    """Of a node in another namespace there would be no word in the bag."""
    writer = BagWriter(tmp_path / "bag", "mcap")
    warnings = graph.warnings()
    recorder = graph.add(lambda **options: Recorder(writer, RecordedNodes(), **options))
    (told,) = recorder.absent().values()
    assert told.startswith("nobody has published /policy_node/settings, without which there is no")
    rig = Rig(graph, {"__ns": "/arm"}, checkpoint=str(checkpoint))
    rig.node.trigger_configure()
    graph.wait(lambda: any("running: /arm/policy_node (--namespace" in text for text in warnings))
    writer.close()


def test_inputs_without_a_publisher_are_told_once_they_are_known(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    recorder = graph.add(lambda **options: Recorder(writer, RecordedNodes(), **options))
    node = Rig(graph, {"joint_states": "/arm/joints"}, checkpoint=str(checkpoint)).node
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    graph.wait(lambda: recorder.absent().keys() == {"/arm/joints", "/keypoints"})
    graph.talk(PoseArray, "/keypoints")
    graph.wait(lambda: recorder.absent().keys() == {"/arm/joints"})
    writer.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_bag(
    graph: Graph, domain_id: int, tmp_path: Path, number: signal.Signals
) -> None:
    bag = tmp_path / "bag"
    with recording(domain_id, "--output", str(bag), "--inputs-file", str(INPUTS)) as process:
        speak_until_flushed(graph, bag)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert not Bag(bag).incomplete
    assert joints(1) in [recorded.message for recorded in Bag(bag).messages(JOINTS)]
    assert "/joint_states" in output


def test_a_killed_recorder_leaves_what_it_had_a_second_ago(
    graph: Graph, domain_id: int, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    with recording(domain_id, "--output", str(bag), "--inputs-file", str(INPUTS)) as process:
        speak_until_flushed(graph, bag)
        process.kill()
        process.wait(20)
    found = Bag(bag)
    assert "was not closed" in found.incomplete
    assert joints(1) in [recorded.message for recorded in found.messages(JOINTS)]


def speak_until_flushed(graph: Graph, bag: Path) -> None:
    speaker = graph.talk(JointState, "joint_states")

    def flushed() -> bool:
        speaker.publish(joints(1))
        return any(file.stat().st_size > 100 for file in bag.glob("*.mcap"))

    graph.wait(flushed)


def test_nothing_is_ever_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("mine")
    assert run_command(Record(tmp_path, seconds=0.1)) == 2
    assert "a bag is never overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_inputs_come_from_a_parameter_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"/**/policy_node:\n  ros__parameters:\n    inputs_file: {INPUTS}\n")
    assert inputs_of_parameters(file, "/arm", "policy_node") == read_inputs(INPUTS)
    assert set(read_inputs(INPUTS)) == {"agent_pos", "environment_state"}
