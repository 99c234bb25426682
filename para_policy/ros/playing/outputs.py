"""What kind of message a command becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from std_msgs.msg import Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory

from para_policy.ros.messages.conversions import (
    command_to_pose,
    command_to_trajectory,
    command_to_twist,
    ns_to_stamp,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OutputOptions:
    """What messages say beyond the numbers.

    Attributes:
        period_ns: command period.
        fixed_orientation: quaternion x, y, z, w; empty: it comes with the actions.
    """

    period_ns: int
    joint_names: Sequence[str] = ()
    frame_id: str = ""
    fixed_orientation: Sequence[float] = ()


def _numbers(command: Array, now_ns: int, options: OutputOptions) -> Float64MultiArray:
    return Float64MultiArray(data=command.tolist())


def _trajectory(command: Array, now_ns: int, options: OutputOptions) -> JointTrajectory:
    return command_to_trajectory(command, options.joint_names, options.period_ns)


def _header(now_ns: int, options: OutputOptions) -> Header:
    return Header(stamp=ns_to_stamp(now_ns), frame_id=options.frame_id)


def _pose(command: Array, now_ns: int, options: OutputOptions) -> PoseStamped:
    return command_to_pose(command, _header(now_ns, options), options.fixed_orientation)


def _twist(command: Array, now_ns: int, options: OutputOptions) -> TwistStamped:
    return command_to_twist(command, _header(now_ns, options))


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
