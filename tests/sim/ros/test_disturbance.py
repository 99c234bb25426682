"""Messages that were disturbed, as they arrive over DDS."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import JointState

from para_policy.ros.messages.conversions import stamp_to_ns
from sim.ros.disturbance import Disturbance, DisturbedPublisher
from tests.ros.graph import Graph

MS = 1_000_000
COUNT = 400


def sent(graph: Graph, disturbance: Disturbance) -> np.ndarray:
    """Stamps in milliseconds, as they arrive, of messages that were measured at 0, 100 ms ..."""
    received = graph.listen(JointState, "joint_states", 3 * COUNT)  # none is to be lost here
    publisher = graph.probe.create_publisher(JointState, "joint_states", 3 * COUNT)
    graph.wait(lambda: publisher.get_subscription_count() > 0)
    disturbed = DisturbedPublisher(publisher, disturbance, seed=0)
    for step in range(1, COUNT + 1):
        disturbed.publish(JointState(position=[float(step)]), step * 100 * MS)
    end = JointState(name=["end"])
    publisher.publish(end)
    graph.wait(lambda: received and received[-1].name == end.name)
    received.pop()
    return np.array([stamp_to_ns(message.header.stamp) / MS for message in received])


def test_undisturbed_messages_arrive_as_they_are(graph: Graph) -> None:
    assert sent(graph, Disturbance()).tolist() == [100.0 * step for step in range(1, COUNT + 1)]


def test_stamps_are_off_by_skew_and_jitter(graph: Graph) -> None:
    stamps = sent(graph, Disturbance(stamp_jitter_ms=3.0, stamp_skew_ms=-20.0))
    off = stamps - 100 * np.arange(1, COUNT + 1)
    assert -23 <= off.min() < -22
    assert -18 < off.max() <= -17


def test_messages_are_lost_doubled_and_overtaken_as_often_as_asked(graph: Graph) -> None:
    stamps = sent(graph, Disturbance(drop=0.1, duplicate=0.2, reorder=0.1))
    known, counts = np.unique(stamps, return_counts=True)
    assert 0.05 < 1 - len(known) / COUNT < 0.16
    assert 0.13 < np.mean(counts == 2) < 0.27
    assert 0.05 < np.mean(np.diff(stamps) < 0) < 0.16
