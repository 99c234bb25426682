from __future__ import annotations

from pathlib import Path

import pytest

from para_policy.errors import InputError
from para_policy.ros.inputs import load_inputs
from tests.ros.graph import CONFIG

SHAPES = {"environment_state": (16,), "agent_pos": (2,)}
JOINTS = "inputs: {a: {topic: t, type: sensor_msgs/msg/JointState, joints: [x]}}"


def test_shipped_file_feeds_pusht() -> None:
    mappings = load_inputs(CONFIG / "pusht_inputs.yaml", SHAPES)
    assert mappings["agent_pos"].joints == ("agent_x", "agent_y")
    assert mappings["environment_state"].topic == "keypoints"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("inputs: [", "not valid YAML"),
        ("", "file: Input should be a valid dictionary"),
        ("inputs: {}", "at least 1 item"),
        (JOINTS.replace("a:", "b:"), r"maps \['b'\]; the policy needs \['a'\]"),
        (JOINTS.replace("topic: t, ", ""), "inputs.a.topic: Field required"),
        (JOINTS.replace("topic", "topics"), "inputs.a.topics: Extra inputs"),
        (JOINTS.replace(", joints: [x]", ""), "needs `joints`"),
        (JOINTS.replace("joints: [x]", "joints: [x], axes: xy"), "does not use axes"),
        (JOINTS.replace("JointState, joints: [x]", "Image"), "Image is not supported yet"),
        (JOINTS.replace("JointState", "Imu"), "'sensor_msgs/msg/Imu' is not supported; choose"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load_inputs(path, {"a": (1,)})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_inputs(tmp_path / "nowhere.yaml", {"a": (1,)})
