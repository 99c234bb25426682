"""PushT as a ROS 2 node: a robot (the agent), a camera, and a score."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Pose, PoseArray
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from para_policy.ros.parameters.declare import Parameter, value
from para_policy.ros.run import run_node
from sim.pusht.env import STATE_INPUTS
from sim.pusht.task import PUSHT
from sim.ros.simulator import SimulatorNode
from sim.tasks.task import Array, Observation

IMAGE_PARAMETERS = (
    Parameter("image_size", 96, "Side of the image, pixels.", (16, 2048), live=True),
)


class PushTSim(SimulatorNode):
    """Publishes `joint_states`, `keypoints` and `image`; moves the agent towards `command`."""

    def __init__(self, **options: Any) -> None:
        self._command: Array | None = None
        super().__init__("pusht_sim", PUSHT, STATE_INPUTS, IMAGE_PARAMETERS, **options)

    def _listen(self, qos: QoSProfile) -> None:
        self.create_subscription(Float64MultiArray, "command", self._receive, qos)

    def _restart(self, observation: Observation) -> None:
        self._command = None

    def _receive(self, message: Float64MultiArray) -> None:
        if not self._running:
            return
        command = np.array(message.data, dtype=np.float64)
        if command.shape != (2,) or not np.isfinite(command).all():
            self.get_logger().warning(
                f"command {command.tolist()} ignored: expected 2 finite numbers"
            )
            return
        self._command = command
        self._commanded()

    def _complete(self) -> bool:
        return self._command is not None

    def _action(self, begin_ns: int) -> Array:
        assert self._command is not None
        return self._command

    def _messages(self, observation: Observation) -> Iterator[tuple[str, Any]]:
        places = observation["agent_pos"].tolist()
        yield "joint_states", JointState(name=["agent_x", "agent_y"], position=places)
        keypoints = PoseArray()
        for x, y in observation["environment_state"].reshape(-1, 2).tolist():
            pose = Pose()
            pose.position.x, pose.position.y = x, y
            keypoints.poses.append(pose)
        yield "keypoints", keypoints

    def _image_size(self) -> tuple[int, int]:
        size = int(value(self, "image_size"))
        return size, size


def main(args: Sequence[str] | None = None) -> int:
    return run_node(PushTSim, args)


if __name__ == "__main__":
    sys.exit(main())
