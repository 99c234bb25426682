"""Cell of the soak: an arm and a gripper with many sensors, for the same small network."""

from __future__ import annotations

from typing import Any, ClassVar

from geometry_msgs.msg import Point, Pose, PoseArray, Vector3, WrenchStamped
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float32MultiArray, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from benchmarks.ros.rig import Robot

INPUTS = """\
inputs:
  agent_pos:                    # each joint from the driver that knows it
  - {topic: joint_states, type: sensor_msgs/msg/JointState, joints: [agent_x]}
  - {topic: gripper/joint_states, type: sensor_msgs/msg/JointState, joints: [agent_y]}
  environment_state:
  - {topic: keypoints, type: geometry_msgs/msg/PoseArray, axes: xy, size: 2}
  - {topic: wrench, type: geometry_msgs/msg/WrenchStamped}
  - {topic: imu, type: sensor_msgs/msg/Imu, fields: [angular_velocity, linear_acceleration]}
  - {topic: fingers, type: std_msgs/msg/Float32MultiArray, size: 2}
"""
_ARM, _GRIPPER = "arm_controller/joint_trajectory", "gripper_controller/commands"
EXECUTOR: dict[str, object] = {
    "joint_names": ["agent_x", "agent_y"],
    "command_topics": [_ARM, _GRIPPER],
    "command_outputs": ["joint_trajectory", "float64_multi_array"],
    "command_sizes": [1, 1],
    "state_topics": ["joint_states", "gripper/joint_states"],
    "coordinates": ["number 0-1"],
    "interpolation": "linear",
    "blending": "linear",
    # Limits that need the state of the robot at each command, and that random weights do not break.
    "velocity_max": [1e5],
    "max_jump": [1e4],
}


class Cell(Robot):
    """A `Robot` whose values come from six topics, and whose action goes to two controllers."""

    sensor_types: ClassVar = {
        "keypoints": PoseArray,
        "wrench": WrenchStamped,
        "imu": Imu,
        "fingers": Float32MultiArray,
        "gripper/joint_states": JointState,
        "joint_states": JointState,
    }
    command_types: ClassVar = {_ARM: JointTrajectory, _GRIPPER: Float64MultiArray}

    def _measure(self, x: float, y: float) -> dict[str, Any]:
        wrench, imu = WrenchStamped(), Imu()
        wrench.wrench.force = wrench.wrench.torque = Vector3(x=x, y=y, z=1.0)
        imu.angular_velocity = imu.linear_acceleration = Vector3(x=y, y=x, z=2.0)
        return {
            "keypoints": PoseArray(poses=[Pose(position=Point(x=x, y=y))]),
            "wrench": wrench,
            "imu": imu,
            "fingers": Float32MultiArray(data=[x, y]),
            "gripper/joint_states": JointState(name=["agent_y"], position=[y]),
            # A driver may tell of more joints than are asked for.
            "joint_states": JointState(name=["wheel", "agent_x"], position=[0.0, x]),
        }
