"""Files of `para-policy init-ros`: nodes in real processes that start from them, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from para_policy import load_policy
from para_policy.checkpoints.native import read_config
from para_policy.ros.messages.input_files import load_inputs
from para_policy.ros.parameters.templates import write_ros_files
from para_policy.ros.policy_node import PolicyNode
from sim.ros.client import LoopClient
from sim.ros.processes import RosProcesses
from sim.tasks.rollout import rollout
from tests.ros.graph import Graph
from tests.ros.image_policy import POSITIONS, camera_image, raw, save_policy, wait_for_status


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_robot_policy(directory: Path, control_hz: float | None) -> Path:
    names = {"camera": "observation.images.top", "state": "observation.state"}
    return save_policy(directory, **names, action_names=["y", "no"], control_hz=control_hz)


def test_unknown_rate_must_be_given(graph: Graph, tmp_path: Path) -> None:
    checkpoint = save_robot_policy(tmp_path / "policy", control_hz=None)
    parameters, _ = write_ros_files(checkpoint, tmp_path / "ros", read_config(checkpoint))
    written = yaml.safe_load(parameters.read_text())["/**/policy_node"]["ros__parameters"]
    node = graph.add(PolicyNode, **{**written, "engine": "eager"})
    said = graph.listen(DiagnosticArray, "/diagnostics")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    wait_for_status(graph, said, DiagnosticStatus.ERROR, "set control_rate_hz to the rate, in Hz")
    node.set_parameters([rclpy.Parameter("control_rate_hz", value=20.0)])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_written_files_of_a_robot_bring_a_node_up(
    graph: Graph, domain_id: int, tmp_path: Path
) -> None:
    checkpoint = save_robot_policy(tmp_path / "policy", control_hz=20)
    config = read_config(checkpoint)
    parameters, inputs = write_ros_files(checkpoint, tmp_path / "ros", config)
    assert load_inputs(inputs, config.inputs)["observation.images.top"].topic == "top/image_raw"
    said = graph.listen(DiagnosticArray, "/diagnostics")
    with RosProcesses(domain_id, threads=1) as processes:
        processes.start(
            "policy_node",
            "para_policy.ros.policy_node",
            {"autostart": True},
            *("--params-file", str(parameters)),
        )
        # Only an active node waits for observations.
        wait_for_status(
            graph,
            said,
            DiagnosticStatus.WARN,
            "holding: no observation yet of observation.images.top, observation.state",
        )
        chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
        images = graph.talk(Image, "top/image_raw", qos_profile_sensor_data)
        joints = graph.talk(JointState, "joint_states")
        positions = JointState(name=["joint_2", "joint_1"], position=POSITIONS)

        def planned() -> bool:
            images.publish(raw(camera_image()))
            joints.publish(positions)
            return bool(chunks)

        graph.wait(planned)
        assert chunks[0].joint_names == ["y", "no"]
        assert chunks[0].points[0].time_from_start.nanosec == 50_000_000
        assert processes.stop() == {"policy_node": 0}


@pytest.mark.usefixtures("one_thread")
def test_written_files_let_an_image_policy_drive_the_simulator(
    domain_id: int, tmp_path: Path
) -> None:
    """The same path, bit for bit, as in one process: the same pixels arrive."""
    names = {"camera": "observation.image", "state": "observation.state"}  # LeRobot's
    checkpoint = save_policy(tmp_path / "policy", **names, control_hz=None)
    parameters, _ = write_ros_files(checkpoint, tmp_path / "ros", read_config(checkpoint))
    file = ("--params-file", str(parameters))
    with RosProcesses(domain_id, threads=1) as processes:
        processes.start(
            "policy_node",
            "para_policy.ros.policy_node",
            {"autostart": True, "lockstep": True, "torch_threads": 1, "engine": "eager"},
            *file,
        )
        processes.start(
            "chunk_executor",
            "para_policy.ros.chunk_executor",
            {"auto_enable": True, "lockstep": True},
            *(*file, "-r", "action_chunk:=policy_node/action_chunk"),
        )
        processes.start(
            "pusht_sim",
            "sim.ros.pusht_sim",
            {
                "autostart": False,
                "lockstep": True,
                "episodes": 1,
                "max_steps": 12,
                "record_dir": str(tmp_path),
            },
            *(*file, "-r", "command:=chunk_executor/command"),
        )
        with LoopClient(domain_id, processes.check) as client:
            client.wait_until_ready()
            played = client.play(100_003)
        assert set(processes.stop().values()) == {0}
    (direct,) = rollout(load_policy(checkpoint), [100_003], sampler="x0", max_steps=12)
    with np.load(played.record) as record:
        np.testing.assert_array_equal(record["states"], direct.states)
    assert np.ptp(direct.states[:, :2], axis=0).min() > 1
