"""PushT as a ROS 2 node: a robot (the agent), a camera, and a score."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from geometry_msgs.msg import Pose, PoseArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from para_policy.errors import InputError
from para_policy.ros.graph import qos_for
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.parameters.declare import Parameter, declare, refuse_unknown, value
from para_policy.ros.parameters.executor import PARAMETERS as OF_CHUNK_EXECUTOR
from para_policy.ros.parameters.policy import PARAMETERS as OF_POLICY_NODE
from para_policy.ros.run import run_node
from sim.pusht.env import CONTROL_DT, MAX_STEPS, STATE_INPUTS
from sim.pusht.task import PUSHT
from sim.ros.disturbance import Disturbance, DisturbedPublisher
from sim.tasks.live import LiveEpisode
from sim.tasks.task import Observation

Command = NDArray[np.float64]
DT_NS = round(1e9 * CONTROL_DT)
_JITTER = 0.1
"""How much too early a timer may fire, in periods."""
_DAY_STEPS = 864_000
_MAX_SEED = 2**32 - 1

PARAMETERS = (
    Parameter(
        "seed",
        100_000,
        "Start state of the first episode; a change counts from ~/reset on.",
        (0, 2**32 - 1),
    ),
    Parameter("episodes", 0, "Episodes to play, seed counting up; 0: without end.", (0, 1_000_000)),
    Parameter(
        "max_steps", MAX_STEPS, "Actions in an episode that does not succeed.", (1, _DAY_STEPS)
    ),
    Parameter("autostart", True, "Play at once; false waits for ~/reset."),
    Parameter("lockstep", False, "Simulated time: each step waits for exactly one command."),
    Parameter("publish_clock", False, "Publish /clock in real time too; in lockstep it always is."),
    Parameter("publish_image", False, "Publish the board as an image."),
    Parameter("image_size", 96, "Side of the image, pixels.", (16, 2048)),
    Parameter(
        "observations_per_step",
        1,
        "Observations published for each action; those between two steps are interpolated.",
        (1, 100),
    ),
    Parameter("stamp_jitter_ms", 0.0, "Stamps are off by up to this, either way.", (0.0, 1e3)),
    Parameter("stamp_skew_ms", 0.0, "Stamps are ahead by this; negative: behind.", (-1e5, 1e5)),
    Parameter("drop", 0.0, "Part of the observations that are lost.", (0.0, 1.0)),
    Parameter("duplicate", 0.0, "Part of the observations that are sent twice.", (0.0, 1.0)),
    Parameter("reorder", 0.0, "Part of the observations sent after the next one.", (0.0, 1.0)),
    Parameter("pause_s", 2.0, "Time between episodes. It never steps back.", (0.0, 3600.0)),
    Parameter(
        "record_dir", "", "Write each episode to this folder as episode_SEED.npz; empty: do not."
    ),
)


class PushTSim(Node):
    """Publishes `joint_states`, `keypoints` and `image`; moves the agent towards `command`.

    In real time the board advances every 0.1 s, with the last command still in force. An episode
    stands still until its first command, as a robot does. In lockstep the time is simulated: it
    is announced on `/clock` and stops until the one command for it has come.

    Each result appears on `~/episode` as JSON. `~/reset` begins again with the parameter `seed`;
    in lockstep call it between episodes only, as a command on its way has no time stamp.

    Raises:
        InputError: when observations are to be disturbed in lockstep.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("pusht_sim", **options)
        declare(self, PARAMETERS)
        refuse_unknown(self, (*OF_POLICY_NODE, *OF_CHUNK_EXECUTOR))
        self._lockstep = bool(value(self, "lockstep"))
        self._episode = LiveEpisode(PUSHT, STATE_INPUTS, value(self, "max_steps"))
        self._played = 0
        self._running = False
        self._pause_steps = 0
        # Simulated time begins after 0, a stamp that stands for "none" in ROS.
        self._time_ns = DT_NS if self._lockstep else self._now_ns()
        self._command: Command | None = None
        self._stalled = False
        self._disturbance = self._disturbed()
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._results = self.create_publisher(String, "~/episode", latched)
        self._joints = self._publisher(JointState, "joint_states")
        self._keypoints = self._publisher(PoseArray, "keypoints")
        self._clock_publisher = self._images = None
        if self._lockstep or value(self, "publish_clock"):
            self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
        if value(self, "publish_image"):
            self._images = self._publisher(Image, "image")
        self.create_subscription(
            Float64MultiArray, "command", self._receive, qos_for(self._lockstep)
        )
        self.create_service(Trigger, "~/reset", self._reset)
        # On the steady clock: ROS time may be the very time that this node makes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._lockstep:
            self.create_timer(1.0, self._send_again, clock=steady)
        else:
            self.create_timer(CONTROL_DT, self._tick, clock=steady)
        if value(self, "autostart"):
            self._begin()

    def _disturbed(self) -> Disturbance:
        names = [field.name for field in fields(Disturbance)]
        given = {name: value(self, name) for name in names}
        wrong = [name for name in names if given[name]]
        if value(self, "observations_per_step") > 1:
            wrong.append("observations_per_step")
        if self._lockstep and wrong:
            raise InputError(
                f"{wrong[0]} is {value(self, wrong[0]):g} in lockstep, where each step waits for its "
                f"observations; leave {', '.join(wrong)} out, or set lockstep to false"
            )
        return Disturbance(**given)

    def _publisher(self, kind: type, topic: str) -> DisturbedPublisher:
        """One of observations; each topic has its own chance."""
        publisher = self.create_publisher(kind, topic, 10)
        return DisturbedPublisher(publisher, self._disturbance, crc32(topic.encode()))

    def _begin(self) -> None:
        observation = self._episode.begin((value(self, "seed") + self._played) % (_MAX_SEED + 1))
        self._command = None
        self._before = observation
        self._running = True
        self._publish(observation)

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._played = 0
        self._running = False
        self._begin_after_pause()
        response.success = True
        response.message = f"next episode has seed {value(self, 'seed')}"
        return response

    def _begin_after_pause(self) -> None:
        """Leave time for the last chunk to run out and for observations to become history."""
        if self._lockstep:
            self._time_ns += round(1e9 * value(self, "pause_s"))
            self._begin()
        else:
            self._pause_steps = max(round(value(self, "pause_s") / CONTROL_DT), 1)

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
        if self._lockstep:
            self._time_ns += DT_NS
            self._step(command)

    def _tick(self) -> None:
        """One control period in real time."""
        # Stamps lie on a regular grid, as the physics does; `stamp_jitter_ms` moves them off it.
        periods = math.floor((self._now_ns() - self._time_ns) / DT_NS + _JITTER)
        if periods < 1:
            return
        self._time_ns += periods * DT_NS
        if self._running and self._command is not None:
            self._step(self._command)
        elif self._running:
            self._publish(self._episode.scene.observation())
        elif self._pause_steps > 0:
            self._pause_steps -= 1
            if self._pause_steps == 0:
                self._begin()

    def _step(self, command: Command) -> None:
        observation = self._episode.step(command)
        if not self._episode.done:
            self._publish(observation)
            return
        self._running = False
        self._report_result()
        self._played += 1
        if self._played != value(self, "episodes"):
            self._begin_after_pause()

    def _report_result(self) -> None:
        result = self._episode.result()
        folder = value(self, "record_dir")
        if folder:
            path = Path(folder) / f"episode_{self._episode.seed}.npz"
            try:
                self._episode.save(path)
                result["record"] = str(path)
            except InputError as error:
                self.get_logger().error(str(error))
        self._results.publish(String(data=json.dumps(result)))
        self.get_logger().info(
            f"seed {result['seed']}: max reward {result['max_reward']:.3f} after {result['steps']} steps"
        )

    def _send_again(self) -> None:
        """In lockstep, repeat the present for a node that has joined or was activated only now."""
        if self._running and self._stalled:
            self._publish(self._episode.scene.observation())
        self._stalled = True

    def _publish(self, observation: Observation) -> None:
        self._stalled = False
        if self._clock_publisher is not None:
            self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(self._time_ns)))
        self._publish_at(self._time_ns, observation)
        count = value(self, "observations_per_step")
        for part in np.arange(1, count) / count:  # known only now, and so they come late
            between = {n: (1 - part) * self._before[n] + part * observation[n] for n in observation}
            self._publish_at(self._time_ns - round((1 - part) * DT_NS), between)
        self._before = observation
        if self._images is not None:
            self._images.publish(self._image(), self._time_ns)

    def _publish_at(self, time_ns: int, observation: Observation) -> None:
        joints = JointState(name=["agent_x", "agent_y"], position=observation["agent_pos"].tolist())
        keypoints = PoseArray()
        for x, y in observation["environment_state"].reshape(-1, 2).tolist():
            pose = Pose()
            pose.position.x, pose.position.y = x, y
            keypoints.poses.append(pose)
        self._joints.publish(joints, time_ns)
        self._keypoints.publish(keypoints, time_ns)

    def _image(self) -> Image:
        pixels = self._episode.scene.image(value(self, "image_size"))
        height, width, _ = pixels.shape
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        image.data = pixels.tobytes()
        return image

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(PushTSim, args)


if __name__ == "__main__":
    sys.exit(main())
