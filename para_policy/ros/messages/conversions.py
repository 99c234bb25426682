"""Conversions of messages to arrays and of chunks to messages and back. Nothing here needs a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Pose, PoseArray, PoseStamped
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from para_policy.errors import InputError, NonFiniteError
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.commander import RobotState
from para_policy.execution.coordinates import POSE_DIM
from para_policy.ros.messages.fields import FIELDS, paths, read_fields
from para_policy.ros.messages.images import IMAGE_OPTIONS, read_compressed_image, read_image
from para_policy.ros.messages.joints import JOINT_FIELDS, joint_values
from para_policy.ros.messages.rigid_transform import RigidTransform

Array = NDArray[np.float64]
NS_PER_S = 1_000_000_000
_DT_TOLERANCE_NS = 1_000
_UNIT_TOLERANCE = 1e-2


def stamp_to_ns(stamp: Time | Duration) -> int:
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def ns_to_stamp(time_ns: int) -> Time:
    return Time(sec=time_ns // NS_PER_S, nanosec=time_ns % NS_PER_S)


def ns_to_duration(time_ns: int) -> Duration:
    return Duration(sec=time_ns // NS_PER_S, nanosec=time_ns % NS_PER_S)


POSE_AXES = {
    "xy": (0, 1),
    "xyz": (0, 1, 2),
    "pose": (0, 1, 2, 3, 4, 5, 6),
    "pose_wxyz": (0, 1, 2, 6, 3, 4, 5),
}
"""Places in x, y, z and the quaternion x, y, z, w of the coordinates that the word means.

`pose_wxyz` is how MuJoCo, and with it many a policy trained in simulation, writes a pose."""


def pose_coordinates(
    poses: Sequence[Pose], axes: str, transform: RigidTransform | None = None
) -> Array:
    """Coordinates of all poses, one after the other: flat.

    Args:
        axes: a key of `POSE_AXES`.
        transform: moves the poses into another frame first; orientations only with all seven.
    Raises:
        InputError: when an orientation that is to be turned has not length 1.
    """
    pairs = [(pose.position, pose.orientation) for pose in poses]
    rows = np.array([[p.x, p.y, p.z, q.x, q.y, q.z, q.w] for p, q in pairs], dtype=np.float64)
    rows = rows.reshape(-1, POSE_DIM)
    places = list(POSE_AXES[axes])
    if transform is not None and len(places) == POSE_DIM:
        rows = transform.poses(rows)
    elif transform is not None:
        rows = transform.positions(rows[:, :3])
    return rows[:, places].ravel()


def pose_to_state(message: PoseStamped, stamp_ns: int, axes: str, frame_id: str) -> RobotState:
    """The present pose of the robot.

    Args:
        stamp_ns: time from which it counts.
        axes: "xyz", or "pose" for the quaternion, too.
        frame_id: the frame that it must be in.
    Raises:
        InputError: when it is in another frame, or its quaternion has not length 1.
        NonFiniteError: when a coordinate is NaN or infinite.
    """
    if message.header.frame_id != frame_id:
        raise InputError(f"the pose is in frame '{message.header.frame_id}', expected '{frame_id}'")
    coordinates = pose_coordinates([message.pose], axes)
    if not np.isfinite(coordinates).all():
        raise NonFiniteError(f"the pose is {coordinates.tolist()}, expected finite numbers")
    length = float(np.linalg.norm(coordinates[3:]))
    if axes == "pose" and abs(length - 1.0) > _UNIT_TOLERANCE:
        raise InputError(f"the pose has a quaternion of length {length:.3g}, expected 1")
    return RobotState(stamp_ns, coordinates)


def _read_joint_state(message: JointState, options: Mapping[str, Any]) -> Array:
    fields = joint_fields(options)
    return np.concatenate([joint_values(message, options["joints"], field) for field in fields])


def joint_fields(options: Mapping[str, Any]) -> Sequence[str]:
    """The `fields` of a JointState; positions where none are given.

    Raises:
        InputError: when one is unknown or there twice.
    """
    fields = tuple(options["fields"]) or JOINT_FIELDS[:1]
    wrong = [field for field in fields if field not in JOINT_FIELDS or fields.count(field) > 1]
    if wrong:
        raise InputError(
            f"fields are {list(fields)}; expected {', '.join(JOINT_FIELDS)}, each at most once"
        )
    return fields


def _read_pose_array(message: PoseArray, options: Mapping[str, Any]) -> Array:
    return pose_coordinates(message.poses, options["axes"], options["transform"])


def _read_pose(message: PoseStamped, options: Mapping[str, Any]) -> Array:
    return pose_coordinates([message.pose], options["axes"], options["transform"])


def _read_numbers(message: Any, _: Mapping[str, Any]) -> Array:
    """Of a message with one number, or many, in `data`."""
    return np.array(message.data, dtype=np.float64).ravel()


@dataclass(frozen=True)
class Converter:
    """Conversion of one message type to an array: flat and float64, or for images (3, H, W) and uint8.

    Attributes:
        read: takes the message and a mapping with the keys of `options`, with `type`, and with
            `shape`, the shape of the policy's input.
        width: number of values that messages have under such options; None where only the message
            knows, or where they are pixels. Refuses options that mean nothing.
        options: keys of the inputs file that mean something for this type.
        is_image: true where it feeds inputs of shape (3, H, W).
    """

    read: Callable[[Any, Mapping[str, Any]], NDArray[Any]]
    width: Callable[[Mapping[str, Any]], int | None]
    options: frozenset[str] = frozenset()
    is_image: bool = False


_FRAME = frozenset({"frame_id"})
_NUMBERS = frozenset({"scale", "offset"})
_SIZE = frozenset({"size"})
_FIELDS = _NUMBERS | {"fields"}
_JOINTS = _FIELDS | _FRAME | {"joints"}
_POSES = _NUMBERS | _FRAME | {"axes", "transform"}
_IMAGES = IMAGE_OPTIONS | _FRAME


def _unknown(_: Mapping[str, Any]) -> None:
    return None


def _fields_converter(kind: str) -> Converter:
    has_header = kind.endswith(("Stamped", "Odometry", "Imu"))
    options = _FIELDS | _FRAME if has_header else _FIELDS
    return Converter(read_fields, lambda given: len(paths(kind, given["fields"])), options)


CONVERTERS: dict[str, Converter] = {
    "sensor_msgs/msg/JointState": Converter(
        _read_joint_state, lambda given: len(given["joints"]) * len(joint_fields(given)), _JOINTS
    ),
    "geometry_msgs/msg/PoseArray": Converter(_read_pose_array, _unknown, _POSES | _SIZE),
    "geometry_msgs/msg/PoseStamped": Converter(
        _read_pose, lambda given: len(POSE_AXES[given["axes"]]), _POSES
    ),
    "sensor_msgs/msg/Image": Converter(read_image, _unknown, _IMAGES | {"encoding"}, is_image=True),
    "sensor_msgs/msg/CompressedImage": Converter(
        read_compressed_image, _unknown, _IMAGES, is_image=True
    ),
    "std_msgs/msg/Float32": Converter(_read_numbers, lambda _: 1, _NUMBERS),
    "std_msgs/msg/Float64": Converter(_read_numbers, lambda _: 1, _NUMBERS),
    "std_msgs/msg/Float32MultiArray": Converter(_read_numbers, _unknown, _NUMBERS | _SIZE),
    "std_msgs/msg/Float64MultiArray": Converter(_read_numbers, _unknown, _NUMBERS | _SIZE),
    **{kind: _fields_converter(kind) for kind in FIELDS},
}
"""Message types that can feed a policy; a new one needs one line here and one function."""


def chunk_to_message(
    chunk: ActionChunk, joint_names: Sequence[str], *, on_arrival: bool = False
) -> JointTrajectory:
    """One point per action, point i at `(i + 1) dt`, as trajectory controllers expect.

    Args:
        on_arrival: stamp the message with zero, which controllers read as "start on arrival",
            instead of the time of the observation.
    """
    message = JointTrajectory(joint_names=list(joint_names))
    message.header.stamp = ns_to_stamp(0 if on_arrival else chunk.stamp_ns)
    for index, action in enumerate(chunk.actions):
        due = ns_to_duration((index + 1) * chunk.dt_ns)
        message.points.append(JointTrajectoryPoint(positions=action.tolist(), time_from_start=due))
    return message


def message_to_chunk(
    message: JointTrajectory, receive_ns: int, joint_names: Sequence[str] = ()
) -> ActionChunk:
    """The inverse of `chunk_to_message`; a zero stamp becomes the time of receipt.

    Args:
        joint_names: the joints that are expected, in order; empty accepts any.
    Raises:
        InputError: when the joints differ, there are no points, the points are not evenly spaced
            or not all of the same size.
        NonFiniteError: when a position is NaN or infinite.
    """
    if joint_names and list(message.joint_names) != list(joint_names):
        raise InputError(
            f"chunk is for joints {list(message.joint_names)}, expected {list(joint_names)}"
        )
    rows = [list(point.positions) for point in message.points]
    if not rows or {len(row) for row in rows} != {len(message.joint_names)}:
        raise InputError(
            f"chunk has points with {sorted({len(row) for row in rows})} positions, "
            f"expected one for each of {len(message.joint_names)} joints"
        )
    due = np.array([stamp_to_ns(point.time_from_start) for point in message.points])
    dt_ns = int(due[0])
    if np.abs(due - dt_ns * np.arange(1, len(due) + 1)).max() > _DT_TOLERANCE_NS:
        raise InputError(
            "points of the chunk are not evenly spaced: point i must be due at (i+1) dt"
        )
    stamp_ns = stamp_to_ns(message.header.stamp) or receive_ns
    return ActionChunk(stamp_ns=stamp_ns, dt_ns=dt_ns, actions=np.array(rows, dtype=np.float64))
