"""Simulated task as a ROS 2 node: its time and its episodes, whatever the robot."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import String
from std_srvs.srv import Trigger

from para_policy.errors import InputError
from para_policy.ros.graph import qos_for
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.parameters.declare import (
    Parameter,
    declare,
    refuse_changes,
    refuse_unknown,
    value,
)
from para_policy.ros.parameters.executor import PARAMETERS as OF_CHUNK_EXECUTOR
from para_policy.ros.parameters.policy import PARAMETERS as OF_POLICY_NODE
from sim.ros import sensors
from sim.tasks.live import LiveEpisode
from sim.tasks.task import Array, Inputs, Observation, SimulatedTask

_JITTER = 0.1
"""How much too early a timer may fire, in periods."""
_MOST_STEPS = 864_000
_MAX_SEED = 2**32 - 1

PARAMETERS = (
    Parameter(
        "seed",
        100_000,
        "Start state of the first episode; a change counts from ~/reset on.",
        (0, _MAX_SEED),
        live=True,
    ),
    Parameter(
        "episodes",
        0,
        "Episodes to play, seed counting up; 0: without end.",
        (0, 1_000_000),
        live=True,
    ),
    Parameter("max_steps", 300, "Actions in an episode that does not succeed.", (1, _MOST_STEPS)),
    Parameter("autostart", True, "Play at once; false waits for ~/reset."),
    Parameter("lockstep", False, "Simulated time: each step waits for exactly one command."),
    Parameter("publish_clock", False, "Publish /clock in real time too; in lockstep it always is."),
    Parameter(
        "pause_s", 2.0, "Time between episodes. It never steps back.", (0.0, 3600.0), live=True
    ),
    Parameter(
        "record_dir",
        "",
        "Write each episode to this folder as episode_SEED.npz; empty: do not.",
        live=True,
    ),
)


class SimulatorNode(Node, ABC):
    """Publishes what a task observes, and plays what it is told.

    In real time the task advances every `task.control_dt` seconds, with what was commanded last
    still in force. An episode stands still until its first command, as a robot does, and nothing is
    published between two. In lockstep the time is simulated: it is announced on `/clock` and stops
    until the one command for it has come.

    Each result appears on `~/episode` as JSON. `~/reset` begins again with the parameter `seed`;
    in lockstep call it between episodes only, as a command on its way has no time stamp.

    Args:
        inputs: what the scene observes.
        image_parameters: of the size of the image.

    Raises:
        InputError: when observations are to be disturbed in lockstep.
        MissingPackageError: when the simulator of the task is not installed.
    """

    def __init__(
        self,
        name: str,
        task: SimulatedTask,
        inputs: Inputs,
        image_parameters: tuple[Parameter, ...],
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        parameters = (*PARAMETERS, *sensors.PARAMETERS, *image_parameters)
        declare(self, parameters)
        refuse_changes(self, parameters)
        refuse_unknown(self, (*OF_POLICY_NODE, *OF_CHUNK_EXECUTOR))
        self._lockstep = bool(value(self, "lockstep"))
        self._dt_ns = round(1e9 * task.control_dt)
        self._episode = LiveEpisode(task, inputs, value(self, "max_steps"))
        self._played = 0
        self._running = False
        self._pause_steps = 0
        # Simulated time begins after 0, a stamp that stands for "none" in ROS.
        self._time_ns = self._dt_ns if self._lockstep else self._now_ns()
        self._stalled = False
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._results = self.create_publisher(String, "~/episode", latched)
        scene = self._episode.scene
        self._sensors = sensors.Sensors(
            self,
            self._messages,
            lambda: scene.image(*self._image_size()),
            scene.observation(),
            self._dt_ns,
        )
        self._clock_publisher = None
        if self._lockstep or value(self, "publish_clock"):
            self._clock_publisher = self.create_publisher(ClockMessage, "/clock", 10)
        self._listen(qos_for(self._lockstep))
        self.create_service(Trigger, "~/reset", self._reset)
        # On the steady clock: ROS time may be the very time that this node makes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._lockstep:
            self.create_timer(1.0, self._send_again, clock=steady)
        else:
            self.create_timer(task.control_dt, self._tick, clock=steady)
        if value(self, "autostart"):
            self._begin()

    @abstractmethod
    def _listen(self, qos: QoSProfile) -> None:
        """Subscribe to the commands. Whoever takes one calls `_commanded`; while no episode is
        `_running` they are late ones, and passed over."""

    @abstractmethod
    def _restart(self, observation: Observation) -> None:
        """Forget all commands: an episode begins with `observation`."""

    @abstractmethod
    def _complete(self) -> bool:
        """Whether a step may be played: in real time after the first command of the episode, in
        lockstep once all commands for this step are there."""

    @abstractmethod
    def _action(self, begin_ns: int) -> Array:
        """What the scene is told (action_dim,) in the step that begins at this time."""

    @abstractmethod
    def _messages(self, observation: Observation) -> Iterator[tuple[str, Any]]:
        """Topics and messages, without stamps, that tell an observation."""

    @abstractmethod
    def _image_size(self) -> tuple[int, int]:
        """Height and width, pixels."""

    def _commanded(self) -> None:
        """A command was taken: in lockstep the time goes on once all have come."""
        if self._lockstep and self._complete():
            self._time_ns += self._dt_ns
            self._step()

    def _begin(self) -> None:
        observation = self._episode.begin((value(self, "seed") + self._played) % (_MAX_SEED + 1))
        self._restart(observation)
        self._sensors.restart(observation)
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
            self._pause_steps = max(round(1e9 * value(self, "pause_s") / self._dt_ns), 1)

    def _tick(self) -> None:
        """One control period in real time."""
        # Stamps lie on a regular grid, as the physics does; `stamp_jitter_ms` moves them off it.
        periods = math.floor((self._now_ns() - self._time_ns) / self._dt_ns + _JITTER)
        if periods < 1:
            return
        self._time_ns += periods * self._dt_ns
        if self._running and self._complete():
            self._step()
        elif self._running:
            self._publish(self._episode.scene.observation())
        elif self._pause_steps > 0:
            self._pause_steps -= 1
            if self._pause_steps == 0:
                self._begin()

    def _step(self) -> None:
        observation = self._episode.step(self._action(self._time_ns - self._dt_ns))
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
                result["not_recorded"] = str(error)
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
        self._sensors.publish(observation, self._time_ns)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)
