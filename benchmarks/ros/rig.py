"""Rig of the node benchmarks: a small network, and a robot that sends observations and listens."""

from __future__ import annotations

import os
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, Pose, PoseArray
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Int64MultiArray
from trajectory_msgs.msg import JointTrajectory

from para_policy.checkpoints.native import read_config, save_checkpoint
from para_policy.files import write_text
from para_policy.networks.config import UnetConfig
from para_policy.policies.build import build_network
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.ros.messages.conversions import ns_to_stamp, stamp_to_ns
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.parameters.templates import inputs_text
from sim.ros.client import WaitingNode

CHUNK_STEPS = 12
_BOARD = 512.0
_TURN_S = 20.0


def small_checkpoint(directory: Path) -> Path:
    """Write a policy with PushT's shapes, random weights and four denoising steps."""
    config = PolicyConfig(
        inputs={"environment_state": (16,), "agent_pos": (2,)},
        action_names=("agent_x", "agent_y"),
        control_hz=10.0,
        network=UnetConfig(down_dims=(8, 16, 16), step_embed_dim=8, kernel_size=3, n_groups=4),
        noise_scheduler={
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": 4,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
        },
    )
    torch.manual_seed(0)
    network = build_network(config)
    board = np.array([[0.0] * 16, [_BOARD] * 16], dtype=np.float32)
    normalizers = {
        "environment_state": LinearNormalizer.fit(board),
        "agent_pos": LinearNormalizer.fit(board[:, :2]),
        "action": LinearNormalizer.fit(board[:, :2]),
    }
    save_checkpoint(directory, config, network.state_dict(), normalizers)
    return directory


def policy_parameters(
    checkpoint: Path, folder: Path, rate_hz: float, inputs: str | None = None
) -> dict[str, object]:
    """Parameters of a policy node that plans with the checkpoint above.

    Args:
        folder: receives the mapping of the inputs.
        inputs: text of that mapping; None for the one that `Robot` sends.
    """
    inputs_file = folder / "inputs.yaml"
    write_text(inputs_file, inputs or inputs_text(read_config(checkpoint)))
    return {
        "checkpoint": str(checkpoint),
        "inputs_file": str(inputs_file),
        "engine": "eager",
        "sampler": "x0",
        "control_rate_hz": rate_hz,
        "n_action_steps": CHUNK_STEPS,
        "torch_threads": 1,
        "autostart": True,
    }


class Robot(WaitingNode):
    """Sends observations, and remembers when what came back; a context manager.

    All times are `time.monotonic_ns`, which all processes of a machine share.

    Attributes:
        chunks, commands: times of arrival.
        chunk_ages_ms: of each chunk at its arrival, since its observation.
        infos: of each chunk, its values.
        heartbeats: times of arrival of the diagnostics of each node.
        errors: what diagnostics said at level ERROR.
        statuses: the last values of each status.
        marks: of `benchmarks.ros.timed_node`, where that is the node.
        warnings: of the executor, with the time of each.
        sensor_types: message types of what it sends, by topic.
        command_types: message types of the commands that it listens to, by topic; those of the first
            are counted.
    """

    sensor_types: ClassVar[Mapping[str, type]] = {
        "keypoints": PoseArray,
        "joint_states": JointState,
    }
    command_types: ClassVar[Mapping[str, type]] = {"chunk_executor/command": Float64MultiArray}

    def __init__(self, domain_id: int, check: Callable[[], None]) -> None:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.chunks, self.commands, self.chunk_ages_ms = array("q"), array("q"), array("d")
        self.warnings: list[tuple[int, str]] = []
        self.infos: list[dict[str, str]] = []
        self.heartbeats: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self.errors: list[str] = []
        self.statuses: dict[str, dict[str, str]] = {}
        self.marks: list[tuple[int, ...]] = []
        super().__init__("robot", domain_id, check)
        subscribe = self.node.create_subscription
        subscribe(JointTrajectory, "policy_node/action_chunk", self._on_chunk, 10)
        subscribe(DiagnosticStatus, "policy_node/chunk_info", self._on_info, 10)
        first, *others = self.command_types
        subscribe(self.command_types[first], first, self._on_command, 10)
        for topic in others:
            subscribe(self.command_types[topic], topic, lambda _: None, 10)
        subscribe(Int64MultiArray, "policy_node/marks", self._on_marks, 10)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._publishers: dict[str, Publisher] = {}
        for topic, kind in self.sensor_types.items():
            self._publishers[topic] = self.node.create_publisher(kind, topic, 10)

    def observe_at(self, rate_hz: float) -> None:
        """From now on send observations in every period."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.node.create_timer(1.0 / rate_hz, self.observe, clock=steady)

    def observe(self) -> int:
        """Send one observation of everything; the time at which the last message was sent."""
        stamp = ns_to_stamp(self.node.get_clock().now().nanoseconds)
        sent_ns = 0
        for topic, message in self._measure(*_agent()).items():
            if hasattr(message, "header"):
                message.header.stamp = stamp
            sent_ns = time.monotonic_ns()
            self._publishers[topic].publish(message)
        return sent_ns

    def _measure(self, x: float, y: float) -> dict[str, Any]:
        """What the sensors say, by topic, of an agent at x, y; sent in this order."""
        poses = [
            Pose(position=Point(x=along, y=across))
            for along, across in np.linspace(100.0, 400.0, 16).reshape(-1, 2).tolist()
        ]
        return {
            "keypoints": PoseArray(poses=poses),
            "joint_states": JointState(name=["agent_x", "agent_y"], position=[x, y]),
        }

    def listen(self, seconds: float) -> None:
        """Let messages in for so long, and look after the nodes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin_once()
        self._check()

    def connected(self) -> bool:
        """Whether observations have somebody to arrive at."""
        return all(one.get_subscription_count() for one in self._publishers.values())

    def forget(self) -> None:
        """Begin the records anew, once everything runs."""
        for times in (self.chunks, self.commands, self.chunk_ages_ms):
            del times[:]
        for heard in (self.infos, self.errors, self.marks, self.warnings):
            del heard[:]
        self.heartbeats.clear()

    def _on_chunk(self, message: JointTrajectory) -> None:
        self.chunks.append(time.monotonic_ns())
        now_ns = self.node.get_clock().now().nanoseconds
        self.chunk_ages_ms.append((now_ns - stamp_to_ns(message.header.stamp)) / 1e6)

    def _on_info(self, status: DiagnosticStatus) -> None:
        self.infos.append(status_values(status))

    def _on_marks(self, message: Int64MultiArray) -> None:
        self.marks.append(tuple(message.data))

    def _on_command(self, _: object) -> None:
        self.commands.append(time.monotonic_ns())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now_ns = time.monotonic_ns()
        for status in message.status:
            self.heartbeats[status.name].append(now_ns)
            self.statuses[status.name] = status_values(status)
            if status.level == DiagnosticStatus.ERROR:
                self._problem = f"{status.name}: {status.message}"
                self.errors.append(self._problem)
            elif status.name.endswith("commands") and status.level == DiagnosticStatus.WARN:
                self.warnings.append((now_ns, status.message))


def _agent() -> tuple[float, float]:
    """Where an agent is that moves in a circle: a stream that stands still is one of a broken sensor."""
    angle = 2 * np.pi * time.monotonic() / _TURN_S
    return float(256.0 + 100.0 * np.cos(angle)), float(256.0 + 100.0 * np.sin(angle))
