"""A 6-DoF arm for tests of the shipped example: a policy with random weights, and a controller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from para_policy.checkpoints.native import save_checkpoint
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from sim.ros.controller import TrajectoryController
from tests.checkpoint import tiny_config
from tests.ros.graph import CONFIG

FOLDER = CONFIG / "arm_6dof"
HOME = [0.3, -1.6, 1.5, -1.4, -1.5, 0.2]
COMMAND_TOPIC = "joint_trajectory_controller/joint_trajectory"
JOINTS = [
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
]
_REACH = 0.003
"""Radians around HOME to which the actions are bound: within all guards, whatever the network says."""


def save_arm_checkpoint(directory: Path) -> Path:
    """A policy from six joints to six joints that trembles around HOME; return its directory."""
    config = tiny_config(train_timesteps=10).model_copy(
        update={"inputs": {"observation.state": (6,)}, "action_names": tuple(JOINTS)}
    )
    torch.manual_seed(0)
    joints = np.array([HOME], dtype=np.float32) + np.array([[-_REACH], [_REACH]], np.float32)
    normalizers = {name: LinearNormalizer.fit(joints) for name in ("observation.state", "action")}
    save_checkpoint(directory, config, build_network(config).state_dict(), normalizers)
    return directory


def shipped_parameters(node: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Of an example, with the one path that only `ros2 launch` can resolve."""
    text = (folder / "policy.yaml").read_text()
    text = text.replace("$(find-pkg-share para_policy)/config", str(CONFIG))
    parameters: dict[str, Any] = yaml.safe_load(text)[f"/**/{node}"]["ros__parameters"]
    return parameters


def set_points(messages: Sequence[tuple[float, JointTrajectory]], update_s: float) -> list[float]:
    """Of the first joint, in each update of a trajectory controller that gets these messages.

    Args:
        messages: with the times of their arrival in seconds, ascending.
    """
    controller = TrajectoryController(messages[0][1].joint_names, round(1e9 * update_s))
    found, left = [], list(messages)
    for time_s in np.arange(0.0, messages[-1][0], update_s):
        now_ns = round(1e9 * time_s)
        while left and left[0][0] <= time_s:
            controller.take(left.pop(0)[1], now_ns)
        found.append(float(controller.update(now_ns)[0]))
    return found


class ArmController(Node):
    """Plays the part of a joint_trajectory_controller and a joint_state_broadcaster.

    The joints are where the last point of the last message is; they are published at 100 Hz, sorted
    by name as a broadcaster may do it.

    Attributes:
        received: all trajectories.
        broadcasting: whether joint_states are published.
        positions: of `JOINTS`, radians.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("joint_trajectory_controller", **options)
        self.received: list[JointTrajectory] = []
        self.broadcasting = True
        self.positions = dict(zip(JOINTS, HOME, strict=True))
        self._states = self.create_publisher(JointState, "joint_states", 10)
        self.create_subscription(JointTrajectory, COMMAND_TOPIC, self._follow, 10)
        self.create_timer(0.01, self._broadcast)

    def _follow(self, message: JointTrajectory) -> None:
        self.received.append(message)
        last = message.points[-1].positions
        self.positions |= dict(zip(message.joint_names, last, strict=True))

    def _broadcast(self) -> None:
        if not self.broadcasting:
            return
        names = sorted(self.positions)
        message = JointState(name=names, position=[self.positions[name] for name in names])
        message.header.stamp = self.get_clock().now().to_msg()
        self._states.publish(message)
