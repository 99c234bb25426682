"""Observations out of a stream of messages that are not what the node received, without DDS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from std_msgs.msg import Float64MultiArray

from para_policy.planning.history import ObservationHistory, observation_digest
from para_policy.ros.bags.observations import Found, Observations
from para_policy.ros.bags.reader import Recorded
from para_policy.ros.bags.records import ChunkRecord
from para_policy.ros.messages.input_files import policy_inputs
from para_policy.ros.messages.inputs import InputMapping
from tests.ros.bags.test_recorder import joints

DT = 100_000_000
T0 = 10**9
JOINTS = InputMapping(
    topic="joint_states", type="sensor_msgs/msg/JointState", joints=("agent_x", "agent_y")
)
NUMBERS = InputMapping(topic="numbers", type="std_msgs/msg/Float64MultiArray")


def history() -> ObservationHistory:
    return ObservationHistory({"x": (2,)}, 2, DT, max_gap_ns=5 * DT)


def record(index: int, stamp_ns: int, values: Sequence[Sequence[float]]) -> ChunkRecord:
    digest = observation_digest({"x": np.array(values, dtype=float)})
    return ChunkRecord(
        index=index,
        stamp_ns=stamp_ns,
        out_ns=stamp_ns,
        received_ns=stamp_ns + DT // 2,
        seed=0,
        settings="",
        observation=digest,
        executed=None,
        committed=0,
        batch=1,
        rounds=1,
        converged=True,
        latency_ms=50.0,
        chunk=None,
    )


def find(mapping: InputMapping, messages: list[Recorded], chunks: list[ChunkRecord]) -> list[Found]:
    topic = f"/{mapping.topic}"
    inputs = policy_inputs({"x": mapping}, {"x": (2,)})
    finder = Observations(inputs, {"x": topic}, 0.5, lambda _: history())
    return [found for _, found in finder.find(messages, chunks)]


def stamped(step: float, value: int, received: float | None = None) -> Recorded:
    message = joints(value)
    at_ns = T0 + round(step * DT)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(at_ns, 10**9)
    received_ns = T0 + round((step if received is None else received) * DT)
    return Recorded("/joint_states", received_ns, message)


def test_an_episode_begins_where_its_first_observation_says() -> None:
    messages = [stamped(step, step) for step in range(6)]
    # After a reset between steps 2 and 3 the node has seen nothing older than step 3.
    chunks = [
        record(3, T0 + 2 * DT, [[1, 1], [2, 1]]),
        record(0, T0 + 3 * DT, [[3, 1], [3, 1]]),
        record(1, T0 + 5 * DT, [[4, 1], [5, 1]]),
    ]
    assert [found.equal for found in find(JOINTS, messages, chunks)] == [True, True, True]


def test_a_message_that_the_recorder_received_after_the_chunk_still_counts() -> None:
    messages = [stamped(0, 0), stamped(1, 1), stamped(3, 3), stamped(2, 2, 3.1), stamped(9, 9)]
    messages.sort(key=lambda recorded: recorded.time_ns)
    (found,) = find(JOINTS, messages, [record(2, T0 + 3 * DT, [[2, 1], [3, 1]])])
    assert found.equal


def test_a_late_message_that_the_policy_did_not_see_is_the_likely_cause() -> None:
    messages = [
        stamped(0, 0),
        stamped(1, 1),
        stamped(2, 2, 2.1),
        stamped(3, 3),
        stamped(2.5, 7, 3.2),
    ]
    (found,) = find(JOINTS, messages, [record(2, T0 + 3 * DT, [[2, 1], [9, 1]])])
    assert not found.equal
    assert "arrived late" in found.reason


def test_messages_without_stamps_are_taken_by_their_time_of_receipt() -> None:
    messages = [
        Recorded("/numbers", T0 + step * DT + 3_000_000, Float64MultiArray(data=[float(step), 1.0]))
        for step in range(4)
    ]  # received three milliseconds later than by the node
    chunks = [record(2, T0 + 2 * DT, [[1, 1], [2, 1]]), record(3, T0 + 3 * DT, [[8, 1], [9, 1]])]
    equal, different = find(NUMBERS, messages, chunks)
    assert equal.equal
    assert "no stamp" in different.reason


def test_a_bag_without_observations_says_so() -> None:
    (found,) = find(JOINTS, [], [record(0, T0, [[1, 1], [1, 1]])])
    assert found.observation is None
    assert "none of its observations" in found.reason


def test_a_message_that_came_far_too_late_was_left_out() -> None:
    messages = [*(stamped(step, step) for step in range(8)), stamped(0.5, 99, 7.1), stamped(8, 8)]
    (found,) = find(JOINTS, messages, [record(1, T0 + 8 * DT, [[7, 1], [8, 1]])])
    assert found.equal
