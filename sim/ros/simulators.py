"""Simulators that there are as nodes, and how policy_node and chunk_executor are joined to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.aloha.env import ACTION_NAMES
from sim.aloha.task import ALOHA
from sim.pusht.task import PUSHT
from sim.tasks.task import SimulatedTask

ARMS = {
    side: [name for name in ACTION_NAMES if name.startswith(side)] for side in ("left", "right")
}
"""Joints of each arm of Aloha, in the order of the actions: six and the gripper."""
ARM_COMMANDS = {side: f"{side}/joint_trajectory_controller/joint_trajectory" for side in ARMS}
"""Topics of their controllers."""


@dataclass(frozen=True)
class Simulator:
    """A node that plays a task.

    Attributes:
        name: of the executable and the node; its module has the same in `sim.ros`.
        command_topic, command_type: where a command of every step can be heard, and as what.
        image_parameters: names of those for the height and the width of its image; one: a square.
        arguments: further ROS arguments, which join it to the executor.
        policy, executor: parameters of policy_node and chunk_executor for it, in lockstep.
    """

    task: SimulatedTask
    name: str
    command_topic: str
    command_type: str
    image_parameters: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    policy: Mapping[str, object] = field(default_factory=dict)
    executor: Mapping[str, object] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return f"sim.ros.{self.name}"


PUSHT_SIM = Simulator(
    PUSHT,
    "pusht_sim",
    "chunk_executor/command",
    "std_msgs/msg/Float64MultiArray",
    ("image_size",),
    arguments=("-r", "command:=chunk_executor/command"),
)
ALOHA_SIM = Simulator(
    ALOHA,
    "aloha_sim",
    ARM_COMMANDS["left"],
    "trajectory_msgs/msg/JointTrajectory",
    ("image_height", "image_width"),
    policy={"joint_names": list(ACTION_NAMES)},
    executor={
        "joint_names": list(ACTION_NAMES),
        "command_topics": list(ARM_COMMANDS.values()),
        "command_outputs": ["joint_trajectory"] * len(ARMS),
        "command_sizes": [len(joints) for joints in ARMS.values()],
        "command_rate_hz": 1 / ALOHA.control_dt,
        # Each point is reached at the end of its step, so that the set-point is the action itself.
        "horizon_periods": 1.0,
    },
)
SIMULATORS = {simulator.task.name: simulator for simulator in (PUSHT_SIM, ALOHA_SIM)}
"""By the name of the task."""
