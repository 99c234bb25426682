"""Inputs that come from several topics, as the inputs file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from para_policy.errors import InputError
from para_policy.ros.messages.input_files import PolicyInputs, load_inputs, read_inputs, topics_of

JOINTS = {"topic": "joint_states", "type": "sensor_msgs/msg/JointState", "joints": ["a", "b"]}
GRIPPER = {"topic": "gripper/width", "type": "std_msgs/msg/Float32"}
WRENCH = {"topic": "wrench", "type": "geometry_msgs/msg/WrenchStamped", "fields": ["force"]}
NUMBERS = {"topic": "numbers", "type": "std_msgs/msg/Float64MultiArray"}
IMAGE = {"topic": "image", "type": "sensor_msgs/msg/Image"}


def load(folder: Path, form: Any, *shape: int) -> PolicyInputs:
    path = folder / "inputs.yaml"
    path.write_text(yaml.safe_dump({"inputs": {"state": form}}))
    return load_inputs(path, {"state": shape})


def test_values_of_several_topics_follow_each_other(tmp_path: Path) -> None:
    inputs = load(tmp_path, [JOINTS, GRIPPER, NUMBERS, WRENCH], 10)
    assert list(inputs) == ["state[0]", "state[1]", "state[2]", "state[3]"]
    assert inputs.parts == {"state": ("state[0]", "state[1]", "state[2]", "state[3]")}
    # What the messages alone would tell is what is left.
    assert list(inputs.shapes.values()) == [(2,), (1,), (4,), (3,)]
    assert inputs["state[1]"].topic == "gripper/width"


def test_one_topic_is_no_list(tmp_path: Path) -> None:
    inputs = load(tmp_path, JOINTS, 2)
    assert (list(inputs), inputs.parts, dict(inputs.shapes)) == (["state"], {}, {"state": (2,)})


def test_topics_are_known_without_a_policy(tmp_path: Path) -> None:
    load(tmp_path, [JOINTS, GRIPPER], 3)
    topics = topics_of(read_inputs(tmp_path / "inputs.yaml"))
    assert {name: mapping.topic for name, mapping in topics.items()} == {
        "state[0]": "joint_states",
        "state[1]": "gripper/width",
    }


@pytest.mark.parametrize(
    ("form", "shape", "reason"),
    [
        ([JOINTS, GRIPPER], (4,), r"with 2 \+ 1 values of 2 topics; expected 4"),
        ([JOINTS, NUMBERS], (2,), r"with 2 \+ \? values of 2 topics; expected 2"),
        ([NUMBERS, NUMBERS], (4,), r"parts \[0, 1\] do not tell their size: give them `size`"),
        ([{**NUMBERS, "size": 3}, NUMBERS, GRIPPER], (4,), r"3 \+ \? \+ 1 values of 3 topics"),
        ([JOINTS, IMAGE], (3, 8, 8), "expected one topic, as only flat vectors have parts"),
        ([JOINTS, {**JOINTS, "joints": ["b"]}], (3,), "position of b of joint_states more than"),
        ([JOINTS, {**GRIPPER, "scale": [1.0, 2.0]}], (3,), r"state\[1\]: 2 numbers in scale"),
        ([JOINTS, {**GRIPPER, "topic": "joint_states"}], (3,), "expected one type for each topic"),
        ([JOINTS, {"topic": "t"}], (3,), r"inputs.state.parts.1.type: Field required"),
        ([JOINTS, "gripper"], (3,), r"inputs.state.parts.1: Input should be a valid dict"),
        ([], (3,), r"inputs.state.parts: Tuple should have at least 1 item"),
    ],
)
def test_parts_that_do_not_make_the_input_are_refused(
    tmp_path: Path, form: Any, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        load(tmp_path, form, *shape)
    assert "Undefined" not in str(caught.value)


def test_one_joint_may_give_position_and_velocity(tmp_path: Path) -> None:
    speeds = {**JOINTS, "joints": ["b"], "fields": ["velocity"]}
    assert load(tmp_path, [JOINTS, speeds], 3).shapes == {"state[0]": (2,), "state[1]": (1,)}
