"""Policies of flow matching, and LeRobot's `multi_task_dit`, on the node: the chunk that they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState

from para_policy import load_policy
from para_policy.checkpoints.load import read_checkpoint
from para_policy.checkpoints.native import save_checkpoint
from para_policy.planning.seeding import chunk_seed
from para_policy.ros.messages.conversions import message_to_chunk, ns_to_stamp
from para_policy.ros.parameters.templates import write_ros_files
from tests.checkpoints.golden import read_golden
from tests.checkpoints.goldens.make_lerobot_dit import TASK
from tests.checkpoints.test_lerobot_dit import save
from tests.ros.graph import Graph
from tests.ros.policy_rig import AGENT, KEYPOINTS, T0, Rig

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "pusht_flow"
STATE = [0.3, -0.2, 0.5]


@pytest.mark.parametrize("sampler", ["sequential", "chord", "collocation"])
def test_the_shipped_flow_answers_as_in_process(graph: Graph, sampler: str) -> None:
    rig = Rig(graph, checkpoint=str(SHIPPED), sampler=sampler)
    found = message_to_chunk(rig.start().plan(T0), 0).actions
    seen = {
        "agent_pos": np.tile(AGENT, (2, 1)),
        "environment_state": np.tile(KEYPOINTS, (2, 1)),
    }
    expected = load_policy(SHIPPED).sample(seen, sampler=sampler, seed=chunk_seed(7, 0))
    np.testing.assert_array_equal(found, expected.actions)
    assert int(rig.info()["rounds"]) == expected.stats.rounds


@pytest.mark.parametrize("case", ["dit_state", "dit_flow"])
def test_multi_task_dit_answers_from_the_files_that_were_written_for_it(
    graph: Graph, tmp_path: Path, case: str
) -> None:
    pytest.importorskip("tokenizers")
    checkpoint = read_checkpoint(save(read_golden(case), tmp_path), task=TASK)
    config = checkpoint.config.changed({"control_hz": 10.0})
    ours = tmp_path / "ours"
    save_checkpoint(ours, config, checkpoint.state, checkpoint.normalizers)
    written, _ = write_ros_files(ours, tmp_path / "ros", config)
    parameters = yaml.safe_load(written.read_text())["/**/policy_node"]["ros__parameters"]
    rig = Rig(graph, **{**parameters, "engine": "eager", "sampler": "x0"})
    assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    joints = graph.talk(JointState, "joint_states")
    graph.wait(lambda: graph.probe.count_publishers("policy_node/action_chunk"))
    message = JointState(name=["joint_1", "joint_2", "joint_3"], position=STATE)
    message.header.stamp = ns_to_stamp(T0)
    joints.publish(message)
    graph.wait(lambda: bool(rig.chunks))
    found = message_to_chunk(rig.chunks[0], 0).actions
    expected = load_policy(ours).sample(
        {"observation.state": np.tile(STATE, (2, 1))}, sampler="x0", seed=chunk_seed(7, 0)
    )
    np.testing.assert_array_equal(found, expected.actions)
