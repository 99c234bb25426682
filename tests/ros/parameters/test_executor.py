from __future__ import annotations

import math
from typing import Any

import pytest
import rclpy
import yaml

from para_policy.errors import InputError
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.parameters.executor import CHOICES, PARAMETERS
from tests.ros.graph import CONFIG, Graph

BOTH = {
    "command_topics": ["a", "b"],
    "command_outputs": ["float64_multi_array", "float64_multi_array"],
    "command_sizes": [6, 6],
}
HALVES = BOTH["command_outputs"][:1]
POSE = {"output": "pose_stamped", "frame_id": "base"}
ARM = {"joint_names": ["a", "b"]}
TWIST = {"output": "twist_stamped", "frame_id": "base"}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        *[
            ({name: "magic"}, f"{name} is 'magic'; expected '{known[0]}' or")
            for name, known in CHOICES.items()
        ],
        ({"lockstep": True, "latency_offset_s": 0.1}, "latency_offset_s is 0.1 in lockstep"),
        ({"lockstep": True, "hold": "repeat"}, "hold is 'repeat' in lockstep"),
        ({"lockstep": True, "output": "twist_stamped"}, "output is 'twist_stamped' in lockstep"),
        ({"lockstep": True, "velocity_max": [1.0]}, r"velocity_max is \[1.0\] in lockstep"),
        ({"output": "joint_trajectory"}, "joint_names is empty"),
        ({"output": "pose_stamped"}, "frame_id is empty"),
        ({**POSE, "state_joints": ["a"]}, r"state_joints is \['a'\] with output 'pose_stamped'"),
        ({**TWIST, "max_jump": [1.0]}, r"max_jump is \[1.0\] with output 'twist_stamped'"),
        ({**POSE, "fixed_orientation": [0.0, 0.0, 2.0, 0.0]}, "quaternion x y z w of length 1"),
        ({**POSE, "fixed_orientation": [1.0]}, "quaternion x y z w of length 1"),
        ({**POSE, "joint_names": ["x", "y"]}, "2 for joint_names, 7 for output 'pose_stamped'"),
        ({"fixed_orientation": [0.0, 0.0, 0.0, 1.0]}, "only 'pose_stamped' has one"),
        ({**TWIST, "hold": "repeat"}, "would go on moving"),
        ({**TWIST, "position_min": [0.0]}, r"position_min is \[0.0\] with output 'twist_stamped'"),
        ({**POSE, "coordinates": ["number 0"]}, "which says what they are; leave them out"),
        ({**TWIST, "coordinates": ["number 0"]}, "which says what they are; leave them out"),
        ({"coordinates": ["magic 0"]}, "'magic' is no kind of coordinates"),
        ({"coordinates": ["quaternion 0-2"]}, "are 3; this kind expects 4"),
        ({"coordinates": ["number 0-1", "angle 1"]}, "coordinate 1 is in 'number 0-1' and in"),
        (
            {"coordinates": ["angle 2"], "joint_names": ["a", "b"]},
            "'angle 2' name coordinate 2; there are 2, 0 to 1",
        ),
        ({"over_budget": "last"}, "set max_chunk_age_s"),
        ({"max_jump": [1.0]}, "max_jump is given .* set state_joints to the names"),
        ({"velocity_max": [1.0]}, "velocity_max is given .* set state_joints to the names"),
        (
            {**ARM, "max_jump": [0.3, 0.02], "velocity_max": [1.5]},
            "max_jump 0.02 and velocity_max 1.5 contradict .* at 50 Hz may move by 0.03;",
        ),
        (
            {**ARM, "max_jump": [0.3], "velocity_max": [1.0, 0.05]},
            "max_jump 0.3 and velocity_max 0.05 contradict .* takes 18 s, max_approach_s is 10;",
        ),
        ({**BOTH, "command_sizes": [6]}, "2 command_topics, 2 command_outputs, 1 command_sizes"),
        ({**BOTH, "command_topics": ["a", "a"]}, "command_topics has 'a' more than once"),
        ({**BOTH, "command_outputs": ["joint_trajectory", "magic"]}, "command_outputs has 'magic'"),
        ({**BOTH, "output": "joint_trajectory"}, "give command_outputs instead"),
        ({**BOTH, "command_outputs": ["joint_trajectory"] * 2}, "joint_names is empty"),
        ({**BOTH, "command_outputs": [*HALVES, "twist_stamped"]}, "for all or for none"),
        (
            {**BOTH, "command_outputs": [*HALVES, "pose_stamped"]},
            "has 6 for 'pose_stamped'; expected 7",
        ),
        (
            {**BOTH, "command_sizes": [6, -1]},
            "has -1 for 'float64_multi_array'; expected 1 or more",
        ),
        ({**BOTH, "joint_names": ["x", "y"]}, "2 for joint_names, 12 for command_sizes"),
        ({**BOTH, "command_topics": ["a", "b c"]}, "command_topics has 'b c', which is no topic"),
        (
            {**BOTH, "command_topics": ["a", "/a"]},
            "command_topics has '/a', which is /a, as is 'a'; expected a topic of its own",
        ),
        (
            {**BOTH, "command_topics": ["action_chunk", "b"]},
            "'action_chunk', which is /action_chunk, as is 'action_chunk'",
        ),
        ({"state_topics": ["joint_states", "/joint_states"]}, "expected a topic of its own"),
        (
            {**ARM, "max_jump": [0.01], "velocity_max": [1.5], "acceleration_max": [40.0, 40.0]},
            "max_jump 0.01 and velocity_max 1.5 contradict",
        ),
        (
            {**BOTH, "command_outputs": ["joint_trajectory", "pose_stamped"], "lockstep": True},
            r"command_outputs is \['joint_trajectory', 'pose_stamped'\] in lockstep",
        ),
        ({"max_jump": [1.0], "state_topics": [""]}, "no state_topics"),
        (
            {
                "command_topics": ["tool", "gripper"],
                "command_outputs": ["pose_stamped", "float64_multi_array"],
                "command_sizes": [7, 1],
                "frame_id": "base",
                "coordinates": ["angle 6-7"],
            },
            "coordinate 6 is in 'angle 6-7' and in '0-6 of an output'",
        ),
        (
            {"joint_names": ["a", "b"], "velocity_max": [1.0] * 3},
            "2 for joint_names, 3 for the lim",
        ),
        (
            {"joint_names": ["a", "b"], "state_joints": ["b", "a"], "velocity_max": [1.0]},
            r"state_joints are \['b', 'a'\], joint_names in another order",
        ),
        ({"velocity_maxx": [1.0]}, r"no parameter velocity_maxx \(did you mean velocity_max\?\)"),
        ({"velocity_max": [-1.0]}, r"velocity_max is \[-1.0\], expected numbers > 0"),
        ({"position_min": [math.nan]}, "position_min is .nan., expected numbers"),
    ],
)
def test_wrong_values_are_refused_at_start(
    graph: Graph, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        graph.add(ChunkExecutor, **parameters)


@pytest.mark.parametrize("file", ["policy.yaml", "arm_6dof/policy.yaml"])
def test_jump_and_velocity_of_shipped_files_go_together(graph: Graph, file: str) -> None:
    """And with a tenth of the velocity, as the checklist for a first run wants it."""
    given = yaml.safe_load((CONFIG / file).read_text())["/**/chunk_executor"]["ros__parameters"]
    graph.add(ChunkExecutor, **given)
    slow = [limit / 10 for limit in given["velocity_max"]]
    graph.add(ChunkExecutor, **{**given, "velocity_max": slow})


def test_a_section_for_all_nodes_may_name_parameters_of_the_others(graph: Graph) -> None:
    graph.add(ChunkExecutor, checkpoint="somewhere", control_rate_hz=10.0)


def test_out_of_range_is_refused_at_start(graph: Graph) -> None:
    with pytest.raises(rclpy.exceptions.ParameterException, match="latency_offset_s"):
        graph.add(ChunkExecutor, latency_offset_s=5.0)


def test_parameters_are_described_and_do_not_change_at_run_time(graph: Graph) -> None:
    node = graph.add(ChunkExecutor)
    for parameter in PARAMETERS:
        assert node.describe_parameter(parameter.name).description == parameter.description
    (answer,) = node.set_parameters([rclpy.Parameter("max_jump", value=[0.1])])
    assert not answer.successful
    assert answer.reason == "max_jump is read at start only; restart the node"
    assert node.set_parameters([rclpy.Parameter("use_sim_time", value=True)])[0].successful


def test_shipped_file_names_every_parameter_with_its_default(graph: Graph) -> None:
    shipped = yaml.safe_load((CONFIG / "policy.yaml").read_text())
    written = shipped["/**/chunk_executor"]["ros__parameters"]
    assert written == {parameter.name: parameter.default for parameter in PARAMETERS}
    graph.add(ChunkExecutor, **written)
