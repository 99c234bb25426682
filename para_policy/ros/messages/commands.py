"""Commands as messages: the kinds that the parameter `output` of chunk_executor names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Twist, TwistStamped, Vector3
from numpy.typing import NDArray
from std_msgs.msg import Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import chunk_to_message, ns_to_stamp

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OutputOptions:
    """Content of messages beyond the numbers.

    Attributes:
        horizon_ns: time in which a trajectory controller is to reach the point of a message.
        fixed_orientation: quaternion x, y, z, w; empty: it comes with the actions.
    """

    horizon_ns: int
    joint_names: Sequence[str] = ()
    frame_id: str = ""
    fixed_orientation: Sequence[float] = ()


def _numbers(command: Array, now_ns: int, options: OutputOptions) -> Float64MultiArray:
    return Float64MultiArray(data=command.tolist())


def _trajectory(command: Array, now_ns: int, options: OutputOptions) -> JointTrajectory:
    """One point, to be reached so long after the message has arrived.

    The controller is on its way when the next message replaces this one. With a horizon of one
    command period it would stand at the point until then whenever that message is late.
    """
    chunk = ActionChunk(stamp_ns=0, dt_ns=options.horizon_ns, actions=command[None])
    return chunk_to_message(chunk, options.joint_names, on_arrival=True)


def _header(now_ns: int, options: OutputOptions) -> Header:
    return Header(stamp=ns_to_stamp(now_ns), frame_id=options.frame_id)


def _pose(command: Array, now_ns: int, options: OutputOptions) -> PoseStamped:
    """A pose from x y z qx qy qz qw, or from x y z and a quaternion that does not change."""
    x, y, z = command[:3].tolist()
    qx, qy, qz, qw = command[3:].tolist() or map(float, options.fixed_orientation)
    pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))
    return PoseStamped(header=_header(now_ns, options), pose=pose)


def _twist(command: Array, now_ns: int, options: OutputOptions) -> TwistStamped:
    """A twist from vx vy vz wx wy wz."""
    vx, vy, vz, wx, wy, wz = command.tolist()
    twist = Twist(linear=Vector3(x=vx, y=vy, z=vz), angular=Vector3(x=wx, y=wy, z=wz))
    return TwistStamped(header=_header(now_ns, options), twist=twist)


@dataclass(frozen=True)
class Output:
    """A message type and what writes a command (A,) into it, at a time in nanoseconds."""

    message: type
    write: Callable[[Array, int, OutputOptions], Any]


OUTPUTS: dict[str, Output] = {
    "float64_multi_array": Output(Float64MultiArray, _numbers),
    "joint_trajectory": Output(JointTrajectory, _trajectory),
    "pose_stamped": Output(PoseStamped, _pose),
    "twist_stamped": Output(TwistStamped, _twist),
}
"""By the value of the parameter `output`; a new one needs one line here and one function."""
COMMAND_TYPES = frozenset(
    f"{output.message.__module__.split('.')[0]}/msg/{output.message.__name__}"
    for output in OUTPUTS.values()
)
"""As `ros2 topic info` prints them."""
