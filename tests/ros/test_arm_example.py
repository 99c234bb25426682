"""The files of config/ros/arm_6dof as they are, between a policy and what plays the controller's part."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.messages.conversions import stamp_to_ns
from para_policy.ros.messages.input_files import load_inputs
from para_policy.ros.parameters import executor as executor_parameters
from para_policy.ros.parameters import policy as policy_parameters
from para_policy.ros.policy_node import PolicyNode
from tests.ros.arm import (
    COMMAND_TOPIC,
    FOLDER,
    HOME,
    JOINTS,
    ArmController,
    save_arm_checkpoint,
    shipped_parameters,
)
from tests.ros.graph import CONFIG, Graph


class Cell:
    """The nodes of `arm.launch.py`, an arm, and what diagnostics say."""

    def __init__(self, graph: Graph, checkpoint: Path) -> None:
        self.graph = graph
        self.statuses = graph.listen(DiagnosticArray, "/diagnostics")
        self.chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
        policy = {**shipped_parameters("policy_node"), "checkpoint": str(checkpoint)}
        policy["engine"] = "eager"
        self.controller: ArmController = graph.add(ArmController)
        graph.add(PolicyNode, **policy, autostart=True)
        graph.add(self._executor, **shipped_parameters("chunk_executor"))

    def _executor(self, **options: object) -> Node:
        remappings = ("action_chunk:=policy_node/action_chunk", f"~/command:={COMMAND_TOPIC}")
        words = [word for rule in remappings for word in ("-r", rule)]
        return ChunkExecutor(cli_args=["--ros-args", *words], **options)

    def enable(self) -> None:
        answer = self.graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=True))
        assert answer.success

    def wait_for(self, node: str, text: str) -> None:
        """For a status that says `text`, said from now on."""
        self.statuses.clear()
        self.graph.wait(
            lambda: any(
                status.name.startswith(node) and text in status.message
                for message in self.statuses
                for status in message.status
            )
        )

    def wait_for_commands(self, count: int = 30) -> None:
        known = len(self.controller.received)
        self.graph.wait(lambda: len(self.controller.received) >= known + count)


@pytest.fixture(scope="module")
def arm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_arm_checkpoint(tmp_path_factory.mktemp("arm"))


@pytest.fixture
def cell(graph: Graph, arm_checkpoint: Path) -> Cell:
    return Cell(graph, arm_checkpoint)


def test_the_policy_moves_the_arm_through_a_trajectory_controller(cell: Cell) -> None:
    cell.wait_for("policy_node", "active")
    cell.graph.spin_for(0.3)
    assert not cell.controller.received, "moved before it was enabled"
    cell.enable()
    cell.wait_for_commands()
    for message in cell.controller.received:
        (point,) = message.points
        assert message.joint_names == JOINTS
        assert stamp_to_ns(message.header.stamp) == 0  # as soon as it arrives
        assert stamp_to_ns(point.time_from_start) == 40_000_000  # two periods ahead
    commands = np.array([message.points[0].positions for message in cell.controller.received])
    assert np.ptp(commands, axis=0).min() > 0
    assert np.abs(commands - HOME).max() <= 0.0101


def test_the_robot_holds_while_the_controller_says_nothing(cell: Cell) -> None:
    cell.enable()
    cell.wait_for_commands()
    chunks = len(cell.chunks)
    cell.graph.wait(lambda: len(cell.chunks) > chunks)
    known = len(cell.controller.received)
    cell.controller.broadcasting = False
    cell.wait_for("policy_node", "observation.state is")
    cell.wait_for("chunk_executor", "holding")
    cell.graph.spin_for(1.0)  # longer than any chunk
    # For 0.1 s, five periods, the last state counts; without the guard the rest of the chunk, some
    # 35 periods, would have been played.
    assert len(cell.controller.received) - known < 15
    cell.controller.broadcasting = True
    cell.wait_for_commands()


def test_an_arm_that_is_elsewhere_is_not_pulled_over(cell: Cell) -> None:
    cell.controller.positions[JOINTS[2]] += 0.35
    cell.enable()
    cell.wait_for("chunk_executor", "max_jump guard: elbow_joint")
    cell.graph.spin_for(0.3)
    assert not cell.controller.received
    cell.controller.positions[JOINTS[2]] -= 0.35
    cell.graph.spin_for(0.3)  # until everybody knows, or it would latch again
    cell.enable()  # takes the latch back
    cell.wait_for_commands()


def test_the_arm_starts_where_it_stands_and_within_its_limits(cell: Cell) -> None:
    """After `~/enable`, and again after a latch, which leaves the arm somewhere else."""
    limits = shipped_parameters("chunk_executor")
    (longest,) = limits["velocity_max"]
    for latched in (False, True):
        if latched:
            away = {JOINTS[1]: HOME[1] - 0.35}  # held there, whatever is commanded
            push = cell.graph.probe.create_timer(
                0.001, lambda away=away: cell.controller.positions.update(away)
            )
            cell.wait_for("chunk_executor", "max_jump guard: shoulder_lift_joint")
            push.destroy()
            cell.controller.positions[JOINTS[1]] = HOME[1]
        cell.controller.positions[JOINTS[2]] += 0.25
        cell.graph.spin_for(0.1)  # until everybody knows
        start = [cell.controller.positions[joint] for joint in JOINTS]
        known = len(cell.controller.received)
        cell.enable()
        cell.wait_for("chunk_executor", "playing")
        messages = cell.controller.received[known:]
        commands = np.array([message.points[0].positions for message in messages])
        steps = np.abs(np.diff([start, *commands], axis=0))
        assert steps[0].max() <= longest * 0.02  # of one period
        assert steps.max() <= longest * 0.06  # a late tick counts three periods at most
        assert len(steps) > 10  # 0.25 rad in no time would be
        assert np.abs(commands[-1] - HOME).max() <= 0.0101


@pytest.mark.parametrize("folder", [FOLDER, CONFIG / "aloha"], ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("node", "known"),
    [
        ("policy_node", policy_parameters.PARAMETERS),
        ("chunk_executor", executor_parameters.PARAMETERS),
    ],
)
def test_all_parameters_exist_and_have_the_right_type(
    node: str, known: tuple, folder: Path
) -> None:
    defaults = {parameter.name: parameter.default for parameter in known}
    for name, content in shipped_parameters(node, folder).items():
        assert type(content) is type(defaults[name]), name
        default = Parameter(name, value=defaults[name])
        assert Parameter(name, value=content).type_ == default.type_, name


@pytest.mark.parametrize(("folder", "joints"), [(FOLDER, 6), (CONFIG / "aloha", 14)])
def test_all_joints_are_guarded_by_every_limit(folder: Path, joints: int) -> None:
    given = shipped_parameters("chunk_executor", folder)
    for limit in ("position_min", "position_max", "velocity_max", "acceleration_max", "max_jump"):
        assert len(given[limit]) in (1, joints)
        assert np.isfinite(given[limit]).all()
    assert given["auto_enable"] is False


def test_a_broken_limit_of_the_arm_holds_until_a_person_has_looked() -> None:
    assert shipped_parameters("chunk_executor")["on_violation"] == "latch"


def test_all_files_name_the_same_joints() -> None:
    named = [shipped_parameters(node)["joint_names"] for node in ("policy_node", "chunk_executor")]
    inputs = load_inputs(FOLDER / "inputs.yaml", {"observation.state": (6,)})
    controllers = yaml.safe_load((FOLDER / "controllers.yaml").read_text())
    trajectories = controllers["joint_trajectory_controller"]["ros__parameters"]
    assert [*named, list(inputs["observation.state"].joints), trajectories["joints"]] == [
        JOINTS
    ] * 4


def test_the_examples_in_comments_are_valid(tmp_path: Path) -> None:
    prose = ("  # A camera,", "  # The pose of")
    lines = (FOLDER / "inputs.yaml").read_text().splitlines()
    path = tmp_path / "inputs.yaml"
    path.write_text(
        "\n".join(re.sub("^  # ", "  ", line) for line in lines if not line.startswith(prose))
    )
    image, pose = "observation.images.wrist", "object_pose"
    inputs = load_inputs(path, {"observation.state": (6,), image: (3, 96, 96), pose: (7,)})
    assert inputs[image].max_unchanged_s == 1.0
    assert inputs[pose].transform is not None


@pytest.mark.parametrize("folder", [FOLDER, CONFIG / "aloha"], ids=lambda folder: folder.name)
def test_nodes_can_read_the_parameter_file(folder: Path) -> None:
    """Those read YAML without anchors and aliases."""
    events = yaml.parse((folder / "policy.yaml").read_text())
    assert not [event for event in events if isinstance(event, yaml.AliasEvent)]
