"""Simulated robots, whose topics are known: `policy.launch.py` starts them beside a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from para_policy.policies.config import PolicyConfig

Lines = Sequence[str]
_STATES = ("agent_pos", "observation.state")
_OBJECTS = ("environment_state", "observation.environment_state")
_IMAGE: Lines = ("topic: image", "type: sensor_msgs/msg/Image", "reliable: true")
_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")


@dataclass(frozen=True)
class Simulated:
    """A simulated robot, as parameter files see it.

    Attributes:
        argument: of `policy.launch.py`, which starts it.
        title: for people.
        hz: actions per second.
        action_dim: coordinates of an action.
        widths: numbers of values of the inputs that are vectors.
        images: names of those that are images.
        square: whether images are.
        telling: a policy that sees one of these inputs is meant for it, and for no real robot that has
            as many joints.
        entries: lines of an observation mapping for each input.
        joints: names that its controllers know, one for each action; empty: they take any.
        executor: lines of parameters for chunk_executor.
        node: the simulator's name.
        image_parameters: names of those for height and width of the image; one: a square.
    """

    argument: str
    title: str
    hz: float
    action_dim: int
    widths: Mapping[str, int]
    images: Sequence[str]
    square: bool
    telling: Sequence[str]
    entries: Mapping[str, Lines]
    joints: Sequence[str]
    executor: Lines
    node: str
    image_parameters: Sequence[str]

    def fits(self, config: PolicyConfig) -> bool:
        """True where it publishes all inputs and the names hardly mean another robot."""
        return (
            config.action_dim == self.action_dim
            and config.control_hz in (None, self.hz)
            and len(config.inputs) > 1
            and not set(self.telling).isdisjoint(config.inputs)
            and all(self._has(name, tuple(shape)) for name, shape in config.inputs.items())
        )

    def _has(self, name: str, shape: tuple[int, ...]) -> bool:
        if name in self.images:
            return len(shape) == 3 and (not self.square or shape[1] == shape[2])
        return shape == (self.widths.get(name),)

    def section(self, config: PolicyConfig) -> str:
        """Parameters of the simulator, for the images that the policy sees."""
        sizes = [config.inputs[name][1:] for name in self.images if name in config.inputs]
        lines = [f"publish_image: {'true' if sizes else 'false'}"]
        for size in sizes[:1]:
            pairs = zip(self.image_parameters, size, strict=False)
            lines += [f"{name}: {pixels}" for name, pixels in pairs]
        text = "".join(f"    {line}\n" for line in lines)
        return f"\n# Only with {self.argument}.\n/**/{self.node}:\n  ros__parameters:\n{text}"


def _joints(side: str) -> list[str]:
    return [f"{side}_{joint}" for joint in _ARM]


def _arm(side: str) -> Lines:
    joints = ", ".join(_joints(side))
    return (
        f"- topic: {side}/joint_states",
        "  type: sensor_msgs/msg/JointState",
        f"  joints: [{joints}]",
    )


_AGENT: Lines = (
    "topic: joint_states",
    "type: sensor_msgs/msg/JointState",
    "joints: [agent_x, agent_y]",
)
_KEYPOINTS: Lines = ("topic: keypoints", "type: geometry_msgs/msg/PoseArray", "axes: xy")
_CUBE: Lines = (
    "topic: cube_pose",
    "type: geometry_msgs/msg/PoseStamped",
    "axes: pose_wxyz",
    "frame_id: world",
)
_BOARD_IMAGES, _TABLE_IMAGES = (
    ("image", "observation.image"),
    ("image", "observation.image", "observation.images.top"),
)
SIMULATED = {
    "pusht": Simulated(
        argument="sim:=true",
        title="the PushT simulator",
        hz=10.0,
        action_dim=2,
        widths={**dict.fromkeys(_STATES, 2), **dict.fromkeys(_OBJECTS, 16)},
        images=_BOARD_IMAGES,
        square=True,
        telling=(*_OBJECTS, *_BOARD_IMAGES),
        entries={
            **dict.fromkeys(_STATES, _AGENT),
            **dict.fromkeys(_OBJECTS, _KEYPOINTS),
            **dict.fromkeys(_BOARD_IMAGES, _IMAGE),
        },
        joints=(),
        executor=(),
        node="pusht_sim",
        image_parameters=("image_size",),
    ),
    "aloha": Simulated(
        argument="sim:=aloha",
        title="two simulated arms; config/ros/aloha of the package has limits for them, too",
        hz=50.0,
        action_dim=14,
        widths={**dict.fromkeys(_STATES, 14), **dict.fromkeys(_OBJECTS, 7)},
        images=_TABLE_IMAGES,
        square=False,
        telling=_OBJECTS,
        entries={
            **dict.fromkeys(_STATES, (*_arm("left"), *_arm("right"))),
            **dict.fromkeys(_OBJECTS, _CUBE),
            **dict.fromkeys(_TABLE_IMAGES, _IMAGE),
        },
        joints=(*_joints("left"), *_joints("right")),
        executor=(
            "command_topics:",
            "  - left/joint_trajectory_controller/joint_trajectory",
            "  - right/joint_trajectory_controller/joint_trajectory",
            "command_outputs: [joint_trajectory, joint_trajectory]",
            "command_sizes: [7, 7]  # six joints and the gripper of each arm",
        ),
        node="aloha_sim",
        image_parameters=("image_height", "image_width"),
    ),
}
"""By the name of the task."""


def simulated(config: PolicyConfig) -> Simulated | None:
    """The robot that a policy is for, where it is one of these."""
    return next((robot for robot in SIMULATED.values() if robot.fits(config)), None)
