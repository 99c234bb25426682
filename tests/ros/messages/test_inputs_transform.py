"""Frames, rigid transforms, scale and offset of an input, from the message to the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, PoseArray, PoseStamped, Quaternion
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from para_policy.errors import InputError
from para_policy.ros.messages.inputs import InputMapping

HALF = 0.5**0.5
QUARTER_TURN_ABOUT_Z = (0.0, 0.0, HALF, HALF)

coordinate = st.floats(-10.0, 10.0)
vectors = st.tuples(coordinate, coordinate, coordinate)
quaternions = (
    st.tuples(*[st.floats(-1.0, 1.0)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: tuple((np.array(q) / np.linalg.norm(q)).tolist()))
)


def pose(x: float, y: float, z: float, *quaternion: float) -> Pose:
    qx, qy, qz, qw = quaternion or (0.0, 0.0, 0.0, 1.0)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def stamped(*coordinates: float) -> PoseStamped:
    return PoseStamped(pose=pose(*coordinates))


def read(message: Any, **options: Any) -> np.ndarray:
    package = {"JointState": "sensor_msgs", "Float64MultiArray": "std_msgs"}
    name = type(message).__name__
    kind = f"{package.get(name, 'geometry_msgs')}/msg/{name}"
    return InputMapping(topic="t", type=kind, **options).read(message, 0, (1,))[1]


def moved(
    values: np.ndarray, translation: tuple[float, ...], rotation: tuple[float, ...]
) -> np.ndarray:
    return read(
        stamped(*values.tolist()),
        axes="pose",
        transform={"translation": translation, "rotation": rotation},
    )


def test_a_camera_that_is_turned_and_lifted() -> None:
    transform = {"translation": [0.0, 0.0, 1.0], "rotation": QUARTER_TURN_ABOUT_Z}
    message = stamped(2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(read(message, axes="xy", transform=transform), [0, 2], atol=1e-15)
    np.testing.assert_allclose(read(message, axes="xyz", transform=transform), [0, 2, 4])
    np.testing.assert_allclose(
        read(message, axes="pose", transform=transform), [0, 2, 4, 0, 0, HALF, HALF]
    )
    np.testing.assert_allclose(
        read(message, axes="pose_wxyz", transform=transform), [0, 2, 4, HALF, 0, 0, HALF]
    )


def test_each_half_of_a_transform_may_be_left_out() -> None:
    message = PoseArray(poses=[pose(1.0, 2.0, 3.0), pose(4.0, 5.0, 6.0)])
    shifted = read(message, axes="xyz", transform={"translation": [10, 20, 30]})
    assert shifted.tolist() == [11, 22, 33, 14, 25, 36]
    turned = read(message, axes="xy", transform={"rotation": [0, 0, 1, 0]})
    np.testing.assert_allclose(turned, [-1, -2, -4, -5])


@given(vectors, quaternions, vectors, quaternions)
def test_the_inverse_takes_a_pose_back_to_where_it_was(
    position: tuple[float, ...],
    orientation: tuple[float, ...],
    translation: tuple[float, ...],
    rotation: tuple[float, ...],
) -> None:
    start = np.array([*position, *orientation])
    there = moved(start, translation, rotation)
    inverse = Rotation.from_quat(rotation).inv()
    back = moved(there, tuple(-inverse.apply(translation)), tuple(inverse.as_quat()))
    np.testing.assert_allclose(back[:3], start[:3], atol=1e-9)
    # The sign too, but for that of the inverse: quaternions must not jump to their other side.
    sign = np.sign(np.dot(back[3:], start[3:]))
    np.testing.assert_allclose(sign * back[3:], start[3:], atol=1e-9)


@given(vectors, quaternions, vectors, quaternions)
def test_transforming_is_multiplying_matrices(
    position: tuple[float, ...],
    orientation: tuple[float, ...],
    translation: tuple[float, ...],
    rotation: tuple[float, ...],
) -> None:
    def matrix(values: Any) -> np.ndarray:
        made = np.eye(4)
        made[:3, :3], made[:3, 3] = Rotation.from_quat(values[3:]).as_matrix(), values[:3]
        return made

    result = moved(np.array([*position, *orientation]), translation, rotation)
    expected = matrix([*translation, *rotation]) @ matrix([*position, *orientation])
    np.testing.assert_allclose(matrix(result), expected, atol=1e-9)


def test_quaternions_stay_on_their_side_through_a_whole_turn() -> None:
    angles = np.linspace(0.0, 4 * np.pi, 200)
    results = [
        moved(
            np.array([0, 0, 0, np.sin(a / 2), 0, 0, np.cos(a / 2)]), (0, 0, 0), QUARTER_TURN_ABOUT_Z
        )
        for a in angles
    ]
    assert np.abs(np.diff(results, axis=0)).max() < 0.05


@pytest.mark.parametrize("length", [1.0009, 0.9991])
def test_rounded_rotations_are_normalised(length: float) -> None:
    rotation = tuple(length * np.array(QUARTER_TURN_ABOUT_Z))
    mapping = InputMapping(
        topic="t", type="geometry_msgs/msg/PoseStamped", transform={"rotation": rotation}
    )
    assert mapping.transform is not None
    np.testing.assert_allclose(mapping.transform.rotation, QUARTER_TURN_ABOUT_Z, rtol=1e-12)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.002, float("nan")])
def test_orientations_that_are_no_rotation_are_refused(w: float) -> None:
    transform = {"translation": [0, 0, 1]}
    message = PoseArray(poses=[pose(1.0, 2.0, 3.0), pose(1.0, 2.0, 3.0, 0.0, 0.0, 0.0, w)])
    with pytest.raises(InputError, match=r"pose 1 has the orientation .* expected a quaternion"):
        read(message, axes="pose", transform=transform)
    assert read(message, axes="xyz", transform=transform).tolist() == [1, 2, 4, 1, 2, 4]


@pytest.mark.parametrize("axes", ["xy", "xyz", "pose", "pose_wxyz"])
def test_no_pose_is_no_values(axes: str) -> None:
    assert read(PoseArray(), axes=axes, transform={"translation": [0, 0, 1]}).size == 0


def test_units_of_joints() -> None:
    message = JointState(name=["a", "b"], position=[np.pi, -np.pi / 2])
    degrees = read(message, joints=["a", "b"], scale=180 / np.pi)
    np.testing.assert_allclose(degrees, [180, -90])
    each = read(message, joints=["b", "a"], scale=[1.0, -1.0], offset=[np.pi / 2, np.pi])
    np.testing.assert_allclose(each, [0, 0], atol=1e-15)


def test_units_of_poses_after_the_transform() -> None:
    options = {"axes": "pose", "transform": {"translation": [0, 0, 1]}}
    millimetres = read(
        stamped(1.0, 2.0, 3.0, *QUARTER_TURN_ABOUT_Z), scale=[1e3] * 3 + [1] * 4, **options
    )
    np.testing.assert_allclose(millimetres, [1000, 2000, 4000, *QUARTER_TURN_ABOUT_Z])


def test_without_scale_numbers_stay_as_they_are() -> None:
    values = read(Float64MultiArray(data=[-0.0, 0.1]))
    assert values.tobytes() == np.array([-0.0, 0.1]).tobytes()


def test_a_message_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="has 3 values, expected 2, as many as offset has"):
        read(Float64MultiArray(data=[1.0, 2.0, 3.0]), offset=[1.0, 2.0])


def test_only_the_frame_that_was_agreed_on_is_taken() -> None:
    message = stamped(1.0, 2.0, 3.0)
    for wrong in ("camera", "", "/base"):
        message.header.frame_id = wrong
        with pytest.raises(InputError, match=f"is in frame '{wrong}', expected 'base'"):
            read(message, frame_id="base")
    message.header.frame_id = "base"
    assert read(message, frame_id="base").tolist() == [1, 2]
