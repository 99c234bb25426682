"""One input from several topics, over DDS: each part has its own slice, age and latency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import WrenchStamped
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState

from para_policy import load_policy
from para_policy.planning.seeding import chunk_seed
from para_policy.ros.bags.replay_bag import replay_bag
from para_policy.ros.messages.conversions import message_to_chunk, ns_to_stamp, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from tests.ros.bags.runs import RecordedRun
from tests.ros.graph import CONFIG, Graph
from tests.ros.policy_rig import DT_NS, KEYPOINTS, T0, Rig

LATENCY_NS = 20_000_000
ARM = {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "joints": ["agent_x"]}
FORCE = {
    "topic": "wrench",
    "type": "geometry_msgs/msg/WrenchStamped",
    "fields": ["force.z"],
    "scale": -1.0,
    "latency_s": LATENCY_NS / 1e9,
    "max_age_s": 0.3,
}


def inputs_file(folder: Path, parts: list[dict[str, Any]]) -> str:
    inputs = yaml.safe_load((CONFIG / "pusht_inputs.yaml").read_text())
    inputs["inputs"]["agent_pos"] = parts
    path = folder / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    return str(path)


class ArmAndForce:
    """A rig whose agent_pos is a joint and a force, with its own stamps."""

    def __init__(self, graph: Graph, checkpoint: Path, folder: Path, **parameters: Any) -> None:
        file = inputs_file(folder, [ARM, FORCE])
        self.rig = Rig(graph, checkpoint=str(checkpoint), inputs_file=file, **parameters).start()
        self.wrenches = graph.talk(WrenchStamped, "wrench")

    def feel(self, measured_ns: int, force: float) -> None:
        wrench = WrenchStamped()
        wrench.header.stamp = ns_to_stamp(measured_ns + LATENCY_NS)
        wrench.wrench.force.z = -force
        self.wrenches.publish(wrench)

    def move(self, stamp_ns: int, x: float) -> None:
        self.rig.observe(stamp_ns, [x], ("agent_x",))


@pytest.fixture
def arm(graph: Graph, checkpoint: Path, tmp_path: Path) -> Callable[..., ArmAndForce]:
    return lambda **parameters: ArmAndForce(graph, checkpoint, tmp_path, **parameters)


def test_parts_are_put_together_at_the_time_that_all_have_reached(
    arm: Callable[..., ArmAndForce], checkpoint: Path
) -> None:
    made = arm()
    for step in range(2):
        made.feel(T0 + step * DT_NS, 200.0 + step)
        made.move(T0 + step * DT_NS, 100.0 + step)
    made.rig.graph.wait(lambda: made.rig.chunks)
    chunk = made.rig.chunks[0]
    seen = [[100.0, 200.0], [101.0, 201.0]]
    if stamp_to_ns(chunk.header.stamp) == T0:  # planned before the second step had come
        seen = [seen[0], seen[0]]
    observation = {
        "agent_pos": np.array(seen),
        "environment_state": np.tile(KEYPOINTS, (2, 1)),
    }
    policy = load_policy(checkpoint)
    expected = policy.sample(observation, sampler="sequential", seed=chunk_seed(7, 0)).actions
    np.testing.assert_array_equal(message_to_chunk(chunk, 0).actions, expected)


def test_a_late_part_holds_the_robot_and_is_named(arm: Callable[..., ArmAndForce]) -> None:
    made = arm(lockstep=False)
    graph = made.rig.graph

    def wait_for(level: bytes, text: str, *, force: bool) -> None:
        known = len(made.rig.diagnostics)

        def said() -> bool:
            now_ns = made.rig.now_ns()
            made.move(now_ns, 100.0)
            if force:
                made.feel(now_ns, 200.0)
            graph.spin_for(0.02)
            return any(
                status.level == level and text in status.message
                for array in made.rig.diagnostics[known:]
                for status in array.status
            )

        graph.wait(said)

    wait_for(DiagnosticStatus.WARN, "no observation yet of agent_pos[1]", force=False)
    wait_for(DiagnosticStatus.OK, "active", force=True)
    wait_for(DiagnosticStatus.WARN, "the newest observation of agent_pos[1] is", force=False)
    ages = status_values(made.rig.diagnostics[-1].status[0])
    assert float(ages["observation_age_ms/agent_pos[1]"]) > 300.0
    assert float(ages["observation_age_ms/agent_pos[0]"]) < 300.0
    wait_for(DiagnosticStatus.OK, "active", force=True)


def test_parts_that_do_not_make_the_input_fail_the_configuration(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    file = inputs_file(tmp_path, [ARM, {**FORCE, "fields": ["force"]}])
    made = Rig(graph, checkpoint=str(checkpoint), inputs_file=file)
    assert made.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    made.wait_for_status(DiagnosticStatus.ERROR, "with 1 + 3 values of 2 topics; expected 2")


def test_recorded_parts_are_replayed_to_the_bit(
    graph: Graph, checkpoint: Path, tmp_path: Path
) -> None:
    parts = [{**ARM, "joints": [joint]} for joint in ("agent_x", "agent_y")]
    file = inputs_file(tmp_path, parts)
    run = RecordedRun(graph, tmp_path / "bag", checkpoint, inputs_file=file)
    run.step(2)
    # From now on in two messages for each step.
    whole = run.rig.joints.publish

    def split(message: JointState) -> None:
        for name, position in zip(message.name, message.position, strict=True):
            whole(JointState(header=message.header, name=[name], position=[position]))

    run.rig.joints.publish = split
    run.step(2)
    (found,) = replay_bag(run.finish())["runs"]
    assert (found["chunks"], found["equal"]) == (4, 4), found["reasons"]
