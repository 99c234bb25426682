"""AlohaTransferCube as a ROS 2 node: two arms behind trajectory controllers, and a cube."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from para_policy.errors import InputError
from para_policy.ros.parameters.declare import Parameter, value
from para_policy.ros.run import run_node
from sim.aloha.env import STATE_INPUTS
from sim.aloha.task import ALOHA
from sim.ros.controller import TrajectoryController
from sim.ros.simulator import SimulatorNode
from sim.ros.simulators import ARM_COMMANDS, ARMS
from sim.tasks.task import Array, Observation

IMAGE_PARAMETERS = (
    Parameter("image_height", 480, "Height of the image, pixels.", (16, 2048), live=True),
    Parameter("image_width", 640, "Width of the image, pixels.", (16, 2048), live=True),
)


class AlohaSim(SimulatorNode):
    """Publishes `left/joint_states`, `right/joint_states`, `cube_pose` and `image`; the arms follow
    `left/joint_trajectory_controller/joint_trajectory` and that of the right one.

    The two controllers are updated once per action, 50 times per second. An arm to which nothing is
    sent keeps its set-point, which in the beginning is where it stands. In lockstep a step waits for a
    message to each arm.
    """

    def __init__(self, **options: Any) -> None:
        self._controllers = {
            side: TrajectoryController(joints, round(1e9 * ALOHA.control_dt))
            for side, joints in ARMS.items()
        }
        self._heard: set[str] = set()
        super().__init__("aloha_sim", ALOHA, STATE_INPUTS, IMAGE_PARAMETERS, **options)

    def _listen(self, qos: QoSProfile) -> None:
        for side, topic in ARM_COMMANDS.items():
            self.create_subscription(JointTrajectory, topic, partial(self._receive, side), qos)

    def _restart(self, observation: Observation) -> None:
        self._heard.clear()
        positions = np.split(observation["agent_pos"], len(ARMS))
        for controller, where in zip(self._controllers.values(), positions, strict=True):
            controller.restart(where)

    def _receive(self, side: str, message: JointTrajectory) -> None:
        if not self._running:
            return
        try:
            self._controllers[side].take(message, self._time_ns)
        except InputError as error:
            self.get_logger().warning(
                f"trajectory for the {side} arm refused: {error}", throttle_duration_sec=1.0
            )
            return
        self._heard.add(side)
        self._commanded()

    def _complete(self) -> bool:
        return len(self._heard) == len(ARMS) if self._lockstep else bool(self._heard)

    def _action(self, begin_ns: int) -> Array:
        if self._lockstep:
            self._heard.clear()
        return np.concatenate([each.update(begin_ns) for each in self._controllers.values()])

    def _messages(self, observation: Observation) -> Iterator[tuple[str, Any]]:
        positions = np.split(observation["agent_pos"], len(ARMS))
        for (side, joints), where in zip(ARMS.items(), positions, strict=True):
            yield f"{side}/joint_states", JointState(name=joints, position=where.tolist())
        cube = PoseStamped()
        cube.header.frame_id = "world"
        at, turned = cube.pose.position, cube.pose.orientation
        at.x, at.y, at.z, turned.w, turned.x, turned.y, turned.z = observation[
            "environment_state"
        ].tolist()
        yield "cube_pose", cube

    def _image_size(self) -> tuple[int, int]:
        return int(value(self, "image_height")), int(value(self, "image_width"))


def main(args: Sequence[str] | None = None) -> int:
    return run_node(AlohaSim, args)


if __name__ == "__main__":
    sys.exit(main())
