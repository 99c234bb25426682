"""One input, one fault at a time: exactly that is found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String

from para_policy.planning.trained import TrainedScale
from para_policy.ros.doctor.report import Finding, Level
from para_policy.ros.doctor.streams import Expected, Stream
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.messages.inputs import InputMapping
from tests.ros.graph import Graph

TOPIC = "/joint_states"
MAPPING = InputMapping(topic=TOPIC, type="sensor_msgs/msg/JointState", joints=("x", "y"))
EXPECTED = Expected(control_rate_hz=10.0, max_age_s=0.5, lockstep=False)


class Sensor(Node):
    """Publishes joint states by a timer."""

    def __init__(
        self,
        *,
        rate_hz: float = 20.0,
        delay_s: float | None = 0.0,
        frozen: bool = False,
        qos: Any = 10,
        joints: tuple[str, ...] = ("x", "y"),
        position: float = 1.0,
        bursts: bool = False,
        name: str = "sensor",
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._bursts, self._count = bursts, 0
        self._delay_s, self._joints, self._position = delay_s, list(joints), position
        self._first_ns = self._now_ns() if frozen else None
        self._publisher = self.create_publisher(JointState, TOPIC, qos)
        self.create_timer(1 / rate_hz, self._publish)

    def _publish(self) -> None:
        self._count += 1
        if self._bursts and self._count % 4 > 1:
            return
        message = JointState(name=self._joints, position=[self._position] * len(self._joints))
        if self._delay_s is not None:
            stamp_ns = self._first_ns or self._now_ns() - round(1e9 * self._delay_s)
            message.header.stamp = ns_to_stamp(stamp_ns)
        self._publisher.publish(message)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def listen(
    graph: Graph,
    mapping: InputMapping = MAPPING,
    expected: Expected = EXPECTED,
    trained: TrainedScale | None = None,
) -> Stream:
    return Stream(graph.probe, "agent_pos", TOPIC, mapping, (2,), expected, trained)


def the_finding(stream: Stream) -> Finding:
    (finding,) = stream.findings()
    assert finding.subject == "agent_pos"
    return finding


def test_a_good_sensor(graph: Graph) -> None:
    stream = listen(graph)
    graph.add(Sensor)
    graph.wait(lambda: stream.heard() > 9)
    finding = the_finding(stream)
    assert finding.level == Level.OK
    assert "/joint_states from /sensor" in finding.found


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        ({"position": math.nan}, Level.FAIL, "holds NaN or infinity"),
        ({"joints": ("x", "z")}, Level.FAIL, "all passed over: no message has named y yet"),
        ({"joints": ("p", "q")}, Level.FAIL, "a message names ['p', 'q'], none of x, y"),
        ({"delay_s": None}, Level.WARN, "stamps are zero"),
        ({"delay_s": 5.0}, Level.FAIL, "before arrival; policy_node holds beyond 0.5 s"),
        ({"delay_s": 0.4}, Level.WARN, "over half of the limit of 0.5 s"),
        ({"delay_s": -5.0}, Level.FAIL, "ahead of this clock: policy_node holds"),
        ({"delay_s": -0.02}, Level.WARN, "s ahead of this clock, max_future_s is 0.005"),
        ({"bursts": True}, Level.WARN, "times observations are "),
        ({"frozen": True}, Level.FAIL, "have the same stamp"),
        ({"rate_hz": 4.0}, Level.WARN, "Hz, control at 10 Hz"),
        ({"rate_hz": 1.5}, Level.WARN, "policy_node holds after 0.5 s"),
    ],
)
def test_a_fault_of_the_sensor(
    graph: Graph, fault: dict[str, Any], level: Level, words: str
) -> None:
    stream = listen(graph)
    graph.add(lambda **options: Sensor(**fault, **options))
    graph.wait(lambda: stream.heard() > (12 if "bursts" in fault else 2))
    finding = the_finding(stream)
    assert (finding.level, words in finding.found) == (level, True), finding
    assert finding.advice


@pytest.mark.parametrize(("reaction", "level"), [("hold", Level.FAIL), ("warn", Level.WARN)])
def test_two_sensors_of_the_same_joints(graph: Graph, reaction: str, level: Level) -> None:
    stream = listen(graph, expected=replace(EXPECTED, rival_inputs=reaction))
    for name in ("truth", "ghost"):
        graph.add(lambda name=name, **options: Sensor(name=name, **options))
    graph.wait(lambda: stream.heard() > 9)
    finding = the_finding(stream)
    assert finding.level == level
    assert finding.found.startswith("/joint_states has 2 publishers, of which at least two send")
    assert "/ghost, /truth" in finding.found
    assert ("policy_node holds" in finding.advice) == (reaction == "hold")


@pytest.mark.parametrize(("coordinates", "level"), [((), Level.WARN), (("number 0-1",), Level.OK)])
def test_only_values_that_can_be_interpolated_bridge_gaps(
    graph: Graph, coordinates: tuple[str, ...], level: Level
) -> None:
    changes = {"interpolation": "linear", "coordinates": coordinates}
    stream = listen(graph, MAPPING.model_copy(update=changes))
    graph.add(lambda **options: Sensor(bursts=True, **options))
    graph.wait(lambda: stream.heard() > 12)
    assert the_finding(stream).level == level


def test_joints_of_others_on_the_same_topic_are_no_fault(graph: Graph) -> None:
    stream = listen(graph)
    for joints in (("x", "y"), ("gripper",)):
        graph.add(lambda joints=joints, **options: Sensor(joints=joints, **options))
    graph.wait(lambda: stream.heard() > 19)
    finding = the_finding(stream)
    assert finding.level == Level.OK, finding
    rate_hz = float(finding.found.split("messages, ")[1].split(" Hz")[0])
    assert 15 < rate_hz < 30, "that of our joints, not of all messages"


@pytest.mark.parametrize(("position", "level"), [(0.5, Level.OK), (28.6, Level.WARN)])
def test_degrees_in_the_place_of_radians(graph: Graph, position: float, level: Level) -> None:
    stream = listen(graph, trained=TrainedScale(np.full(2, 2.0), np.zeros(2)))
    graph.add(lambda **options: Sensor(position=position, **options))
    graph.wait(lambda: stream.heard() > 9)
    finding = the_finding(stream)
    assert finding.level == level
    if level == Level.WARN:
        assert (
            "value 0 is 28.6, where the policy knows about -0.5 to 0.5, and 1 more" in finding.found
        )
        assert "`scale`" in finding.advice


def test_in_lockstep_rate_and_age_do_not_count(graph: Graph) -> None:
    stream = listen(graph, expected=Expected(100.0, 0.5, lockstep=True))
    graph.add(lambda **options: Sensor(delay_s=5.0, **options))
    graph.wait(lambda: stream.heard() > 2)
    assert the_finding(stream).level == Level.OK


def test_known_latency_makes_the_observation_older(graph: Graph) -> None:
    stream = listen(graph, MAPPING.model_copy(update={"latency_s": 1.0}))
    graph.add(Sensor)
    graph.wait(lambda: stream.heard() > 2)
    finding = the_finding(stream)
    assert finding.level == Level.FAIL
    assert "stamped 1.0" in finding.found


def test_best_effort_sensor_is_never_heard(graph: Graph) -> None:
    stream = listen(graph)
    graph.add(lambda **options: Sensor(qos=qos_profile_sensor_data, **options))
    graph.wait(stream.exists)
    finding = the_finding(stream)
    assert finding.level == Level.FAIL
    assert "publisher /sensor is best effort" in finding.found
    assert "`reliable: false`" in finding.advice


def test_no_publisher_but_the_type_elsewhere(graph: Graph) -> None:
    stream = listen(graph)
    graph.probe.create_publisher(JointState, "/arm/joint_states", 10)
    graph.wait(lambda: graph.probe.count_publishers("/arm/joint_states"))
    finding = the_finding(stream)
    assert (finding.level, finding.found) == (Level.FAIL, "nobody publishes /joint_states")
    assert "topics of this type: /arm/joint_states" in finding.advice


def test_another_type(graph: Graph, others: Graph) -> None:
    stream = listen(graph)
    others.probe.create_publisher(String, TOPIC, 10)
    words = "carries std_msgs/msg/String from probe"
    graph.wait(lambda: words in the_finding(stream).found)
    assert the_finding(stream).level == Level.FAIL


def test_silent_publisher(graph: Graph) -> None:
    stream = listen(graph)
    graph.probe.create_publisher(JointState, TOPIC, 10)
    graph.wait(stream.exists)
    finding = the_finding(stream)
    assert finding.level == Level.FAIL
    assert "nothing arrived on /joint_states from /probe" in finding.found


def test_a_rotation_that_is_none(graph: Graph) -> None:
    mapping = InputMapping(
        topic=TOPIC, type="std_msgs/msg/Float64MultiArray", coordinates=("quaternion 0-3",)
    )
    stream = Stream(graph.probe, "agent_pos", TOPIC, mapping, (4,), EXPECTED)
    publisher = graph.talk(Float64MultiArray, TOPIC)
    publisher.publish(Float64MultiArray(data=[0.0] * 4))
    graph.wait(stream.heard)
    finding = the_finding(stream)
    assert finding.level == Level.FAIL
    assert "'agent_pos' has the quaternion [0.0, 0.0, 0.0, 0.0] of length 0" in finding.found


def test_another_number_of_values(graph: Graph) -> None:
    mapping = InputMapping(topic=TOPIC, type="std_msgs/msg/Float64MultiArray")
    stream = listen(graph, mapping)
    publisher = graph.talk(Float64MultiArray, TOPIC)
    publisher.publish(Float64MultiArray(data=[1.0, 2.0, 3.0]))
    graph.wait(stream.heard)
    finding = the_finding(stream)
    assert finding.level == Level.FAIL
    assert "has shape (3,), expected (2,)" in finding.found
