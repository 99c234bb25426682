from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from para_policy.errors import InputError
from para_policy.ros.messages.input_files import load_inputs
from para_policy.ros.messages.inputs import InputMapping
from tests.ros.graph import CONFIG

SHAPES = {"environment_state": (16,), "agent_pos": (2,)}
JOINTS = "inputs: {a: {topic: t, type: sensor_msgs/msg/JointState, joints: [x]}}"
POSE = "inputs: {a: {topic: t, type: geometry_msgs/msg/PoseStamped}}"
NUMBERS = "inputs: {a: {topic: t, type: std_msgs/msg/Float64MultiArray}}"
POSES = "inputs: {a: {topic: t, type: geometry_msgs/msg/PoseArray}}"
TWIST = "inputs: {a: {topic: t, type: geometry_msgs/msg/Twist}}"
IMU = "inputs: {a: {topic: t, type: sensor_msgs/msg/Imu}}"
IMAGE = "inputs: {a: {topic: t, type: sensor_msgs/msg/Image}}"


def test_shipped_file_feeds_pusht() -> None:
    mappings = load_inputs(CONFIG / "pusht_inputs.yaml", SHAPES)
    assert mappings["agent_pos"].joints == ("agent_x", "agent_y")
    assert mappings["environment_state"].topic == "keypoints"


def test_shipped_file_feeds_pusht_with_a_camera() -> None:
    shapes = {"image": (3, 96, 96), "agent_pos": (2,)}
    mappings = load_inputs(CONFIG / "pusht_image_inputs.yaml", shapes)
    assert mappings["image"].message is Image
    assert mappings["image"].reliable


@pytest.mark.parametrize(
    ("kind", "lockstep", "reliability", "depth"),
    [
        ("JointState", False, ReliabilityPolicy.RELIABLE, 10),
        ("Image", False, ReliabilityPolicy.BEST_EFFORT, 1),
        ("CompressedImage", False, ReliabilityPolicy.BEST_EFFORT, 1),
        ("Image", True, ReliabilityPolicy.BEST_EFFORT, 10),
    ],
)
def test_images_accept_best_effort_and_do_not_queue(
    kind: str, lockstep: bool, reliability: ReliabilityPolicy, depth: int
) -> None:
    joints = {"joints": ["x"]} if kind == "JointState" else {}
    mapping = InputMapping(topic="t", type=f"sensor_msgs/msg/{kind}", **joints)
    qos = mapping.qos(lockstep=lockstep)
    assert (qos.reliability, qos.depth) == (reliability, depth)
    asked = mapping.model_copy(update={"reliable": reliability == ReliabilityPolicy.BEST_EFFORT})
    assert asked.qos(lockstep=lockstep).reliability != reliability


@pytest.mark.parametrize("shape", [(3,), (4, 8, 8), (8, 8, 3), (2, 3, 8, 8)])
def test_images_feed_inputs_with_three_channels_first_only(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(IMAGE)
    assert load_inputs(path, {"a": (3, 8, 8)})["a"].crop is None
    with pytest.raises(InputError, match="images feed inputs of shape"):
        load_inputs(path, {"a": shape})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("inputs: [", "not valid YAML"),
        ("inputs:\n  a: {}\n  b: {}\n  a: {}", "key 'a' stands in line 2 and in line 4"),
        ("", "file: Input should be a valid dictionary"),
        ("inputs: {}", "at least 1 item"),
        (JOINTS.replace("a:", "b:"), r"maps \['b'\]; the policy needs \['a'\]"),
        (JOINTS.replace("topic: t, ", ""), "inputs.a.topic: Field required"),
        (JOINTS.replace("topic", "topics"), "inputs.a.topics: Extra inputs"),
        (JOINTS.replace(", joints: [x]", ""), "needs `joints`"),
        (JOINTS.replace("joints: [x]", "joints: [x], axes: xy"), "does not use axes"),
        (JOINTS.replace("joints: [x]", "joints: [x], resize: true"), "does not use resize"),
        (IMAGE.replace("}", ", joints: [x]}"), "does not use joints"),
        (
            IMAGE,
            r"feeds 'a' of shape \(1,\) with sensor_msgs/msg/Image; images feed .* \(3, height",
        ),
        (IMAGE.replace("}", ", crop: [0, 0, 5]}"), "inputs.a.crop"),
        (IMAGE.replace("}", ", crop: [0, 0, 5, 0]}"), "inputs.a.crop.*: Input should be greater"),
        (IMAGE.replace("}", ", crop: [-1, 0, 5, 5]}"), "inputs.a.crop.*: Input should be greater"),
        (IMAGE.replace("}", ", interpolation: linear}"), "images cannot be interpolated"),
        (POSE.replace("}", ", coordinates: [number 0]}", 1), "does not use coordinates: they are"),
        (IMAGE.replace("}", ", coordinates: [number 0]}"), "does not use coordinates"),
        (JOINTS.replace("}", ", coordinates: [magic 0]}", 1), "'magic' is no kind of coordinates"),
        (JOINTS.replace("}", ", coordinates: [angle 0, number 0]}", 1), "0 is in 'angle 0' and in"),
        (
            JOINTS.replace("}", ", coordinates: [angle 1]}", 1),
            r"feeds 'a' of shape \(1,\) with coordinates 'angle 1' name coordinate 1; there are 1",
        ),
        (JOINTS.replace("}", ", interpolation: cubic}", 1), "inputs.a.interpolation"),
        (JOINTS.replace("}", ", max_age_s: 0.0}", 1), "inputs.a.max_age_s"),
        (JOINTS.replace("}", ", max_age_s: .nan}", 1), "inputs.a.max_age_s"),
        (JOINTS.replace("}", ", latency_s: -0.1}", 1), "inputs.a.latency_s"),
        (JOINTS.replace("}", ", max_unchanged_s: 0.0}", 1), "inputs.a.max_unchanged_s"),
        (JOINTS.replace("}", ", frame_id: ''}", 1), "inputs.a.frame_id"),
        (NUMBERS.replace("}", ", frame_id: base}", 1), "MultiArray does not use frame_id"),
        (JOINTS.replace("}", ", transform: {}}", 1), "is empty; expected translation, rotation"),
        (JOINTS.replace("}", ", transform: {translation: [0, 0, 1]}}", 1), "not use transform"),
        (POSE.replace("}", ", transform: {translation: [0, 0]}}", 1), "inputs.a.transform.transl"),
        (
            POSE.replace("}", ", transform: {rotation: [0, 0, 1, 1]}}", 1),
            "of length 1, it has 1.41",
        ),
        (POSE.replace("}", ", transform: {rotation: [0, 0, 0, .nan]}}", 1), "finite number"),
        (IMAGE.replace("}", ", scale: 2.0}", 1), "does not use scale"),
        (JOINTS.replace("}", ", scale: 0.0}", 1), "scaled by 0 all values are the same"),
        (JOINTS.replace("}", ", scale: [0.0]}", 1), "scaled by 0 all values are the same"),
        (JOINTS.replace("}", ", scale: []}", 1), r"0 numbers in scale; expected one number, or 1"),
        (JOINTS.replace("}", ", offset: .inf}", 1), "inputs.a.offset.*finite number"),
        (
            JOINTS.replace("}", ", offset: [1.0, 2.0]}", 1),
            r"feeds 'a' of shape \(1,\) with 2 numbers in offset; expected one number, or 1",
        ),
        (POSE.replace("}", ", axes: pose, scale: 2.0}", 1), r"scale \[2.0\] would change the quat"),
        (
            POSE.replace("}", ", axes: pose_wxyz, offset: [1, 1, 1, 0, 0, 0, 1]}", 1),
            r"would change the quaternion; expected numbers like \[\*, \*, \*, 0, 0, 0, 0\]",
        ),
        (JOINTS.replace("JointState", "Range"), "'sensor_msgs/msg/Range' is not supported; choose"),
        (JOINTS.replace("s/msg/J", "s/J"), "choose sensor_msgs/msg/JointState, got"),
        (JOINTS.replace("sensor_msgs/msg/J", "J"), "choose sensor_msgs/msg/JointState, got"),
        (JOINTS.replace("[x]", "[x, y]"), r"2 values \(position of 2 joints\); expected 1"),
        (JOINTS.replace("[x]", "[x, x]"), "x more than once; expected each joint once"),
        (
            JOINTS.replace("[x]", "[x], fields: [torque]"),
            "expected position, velocity, effort, each",
        ),
        (POSE, r"2 values \(axes: xy\); expected 1"),
        (POSES, r"2 values for each pose \(axes: xy\); expected 1 in all"),
        (TWIST, r"6 values \(fields: all\); expected 1"),
        (TWIST.replace("}", ", fields: [speed]}", 1), "no field 'speed'; expected linear, angular"),
        (TWIST.replace("}", ", fields: [linear.w]}", 1), "no field 'linear.w'; expected linear"),
        (TWIST.replace("}", ", fields: [linear, linear.x]}", 1), "linear.x more than once"),
        (TWIST.replace("}", ", frame_id: base}", 1), "Twist does not use frame_id"),
        (IMU.replace("}", ", coordinates: [number 0]}", 1), "does not use coordinates: they are"),
        (IMU.replace("}", ", scale: 2.0}", 1), r"expected numbers like \[1, 1, 1, 1, \*, \*"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load_inputs(path, {"a": (1,)})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Undefined" not in str(caught.value), "only what somebody has written is named"


def test_a_part_that_is_wrong_is_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text("inputs: {a: [{topic: t, type: std_msgs/Float32}]}")
    with pytest.raises(InputError) as caught:
        load_inputs(path, {"a": (1,)})
    said = str(caught.value)
    assert "choose std_msgs/msg/Float32" in said
    assert "at least 1" not in said, "that the list is empty without it only follows"


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        (
            NUMBERS,
            (3, 8, 8),
            r"an input of shape \(3, height, width\) expects sensor_msgs/msg/Image or",
        ),
        (
            IMAGE.replace("}", ", crop: [0, 0, 4, 5]}", 1),
            (3, 8, 8),
            "leaves 4 x 5 pixels .* expected 8 x 8",
        ),
        (POSE.replace("}", ", axes: pose}", 1), (6,), r"7 values \(axes: pose\); expected 6"),
        (
            JOINTS.replace("[x]", "[p, q, r, s, t]"),
            (6,),
            r"5 values \(position of 5 joints\); expected 6",
        ),
    ],
)
def test_what_can_never_fit_is_refused_with_both_numbers(
    tmp_path: Path, text: str, shape: tuple[int, ...], reason: str
) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason):
        load_inputs(path, {"a": shape})


def test_cropped_images_of_the_policys_size_need_no_resize(tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(IMAGE.replace("}", ", crop: [0, 0, 8, 8]}", 1))
    assert load_inputs(path, {"a": (3, 8, 8)})["a"].crop == (0, 0, 8, 8)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_inputs(tmp_path / "nowhere.yaml", {"a": (1,)})


def test_latency_moves_observations_to_the_time_of_the_measurement(tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(JOINTS.replace("]}", "], latency_s: 0.02, max_age_s: 2.0}"))
    mapping = load_inputs(path, {"a": (1,)})["a"]
    message = JointState(name=["x"], position=[1.0])
    message.header.stamp.sec = 5
    assert mapping.read(message, 9 * 10**9, (1,))[0] == 4_980_000_000
    message.header.stamp.sec = 0
    assert mapping.read(message, 9 * 10**9, (1,))[0] == 8_980_000_000
    assert (mapping.max_age_s, mapping.interpolation) == (2.0, "hold")
    plain = InputMapping(topic="t", type="std_msgs/msg/Float64MultiArray", latency_s=0.5)
    assert plain.read(Float64MultiArray(data=[1.0]), 9 * 10**9, (1,))[0] == 8_500_000_000


@pytest.mark.parametrize("axes", ["pose", "pose_wxyz"])
def test_poses_say_themselves_what_they_are_and_other_messages_are_told(axes: str) -> None:
    pose = InputMapping(
        topic="t", type="geometry_msgs/msg/PoseArray", axes=axes, interpolation="linear"
    )
    two = pose.coordinates_of((2, 7))
    assert [group.index for group in two.groups] == [(3, 4, 5, 6), (10, 11, 12, 13)]
    assert two.untold(14) == ""
    plane = InputMapping(topic="t", type="geometry_msgs/msg/PoseStamped", axes="xy")
    assert plane.coordinates_of((2,)).untold(2) == ""
    numbers = InputMapping(
        topic="t", type="std_msgs/msg/Float64MultiArray", coordinates=("rotation_vector 3-5",)
    )
    assert numbers.coordinates_of((7,)).untold(7) == "0, 1, 2, 6"


def test_messages_with_an_orientation_say_what_it_is_and_a_part_of_it_is_not_mixed() -> None:
    imu = InputMapping(topic="t", type="sensor_msgs/msg/Imu", interpolation="linear")
    told = imu.coordinates_of((10,))
    assert told.untold(10) == ""
    assert told.groups[-1].index == (0, 1, 2, 3)
    yaw = ("linear.x", "orientation.z", "orientation.w")
    part = InputMapping(topic="t", type="nav_msgs/msg/Odometry", fields=yaw)
    assert part.coordinates_of((3,)).untold(3) == "1, 2"
    turned = ("orientation.w", "position", "orientation.x", "orientation.y", "orientation.z")
    mixed = InputMapping(topic="t", type="nav_msgs/msg/Odometry", fields=turned)
    assert mixed.coordinates_of((7,)).groups[-1].index == (0, 4, 5, 6)
