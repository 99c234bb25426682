"""Sensors, a policy node and an executor in a closed circle over DDS, in one process."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Pose, PoseArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState

from para_policy import DiffusionPolicy
from para_policy.checkpoints.native import save_checkpoint
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.policy_node import PolicyNode
from tests.checkpoint import tiny_config
from tests.ros.faults.judge import Judge
from tests.ros.graph import CONFIG, Graph

RATE_HZ = 20.0
EXECUTOR_HZ = 50.0
DT_NS = 50_000_000
MAX_AGE_S = 0.3
EXECUTOR = {
    "output": "pose_stamped",
    "frame_id": "base",
    "fixed_orientation": [0.0, 0.0, 0.0, 1.0],
    "command_rate_hz": EXECUTOR_HZ,
    "auto_enable": True,
}
POLICY = {
    "inputs_file": str(CONFIG / "pusht_inputs.yaml"),
    "control_rate_hz": RATE_HZ,
    "max_observation_age_s": MAX_AGE_S,
    "sampler": "sequential",
    "engine": "eager",
    "torch_threads": 1,
}


def save_policy(directory: Path, seed: int = 0) -> Path:
    """PushT's inputs, three actions, for poses; unclipped, so that no two actions are alike."""
    small = tiny_config(train_timesteps=10)
    scheduler = {**small.noise_scheduler, "clip_sample": False}
    changes = {"action_names": ("x", "y", "z"), "noise_scheduler": scheduler}
    config = type(small).model_validate({**small.model_dump(), **changes})
    torch.manual_seed(seed)
    weights = build_network(config).state_dict()
    sizes = {"environment_state": 16, "agent_pos": 2, "action": 3}
    normalizers = {
        name: LinearNormalizer.fit(torch.tensor([[0.0] * size, [512.0] * size]).numpy())
        for name, size in sizes.items()
    }
    save_checkpoint(directory, config, weights, normalizers)
    return directory


Feed = Callable[[JointState, PoseArray], None]


class Sensors:
    """Observations that move, of the present time, `RATE_HZ` times a second."""

    def __init__(self, graph: Graph, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self.joints = graph.probe.create_publisher(JointState, "joint_states", 10)
        self.keypoints = graph.probe.create_publisher(PoseArray, "keypoints", 10)
        self.feed: Feed = self.send
        """What is done with each observation; a fault is another function."""
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        graph.probe.create_timer(1 / RATE_HZ, lambda: self.feed(*self.measure()), clock=steady)

    def measure(self) -> tuple[JointState, PoseArray]:
        now_ns = self.now_ns()
        angle = now_ns / 1e9 % 10
        joints = JointState(name=["agent_x", "agent_y"])
        joints.position = [256 + 100 * math.cos(angle), 256 + 100 * math.sin(angle)]
        keypoints = PoseArray(poses=[Pose() for _ in range(8)])
        for index, pose in enumerate(keypoints.poses):
            pose.position.x = pose.position.y = 100.0 + 10 * index + angle
        joints.header.stamp = keypoints.header.stamp = ns_to_stamp(now_ns)
        return joints, keypoints

    def send(self, joints: JointState, keypoints: PoseArray) -> None:
        self.joints.publish(joints)
        self.keypoints.publish(keypoints)


class Loop:
    """The circle, and a judge who hears every command of it.

    Args:
        policy, executor: parameters of the two nodes.
        now_ns: time of the sensors; None: of the policy node.
    """

    def __init__(
        self,
        graph: Graph,
        checkpoint: Path,
        *,
        policy: dict[str, Any] | None = None,
        executor: dict[str, Any] | None = None,
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        self.graph = graph
        parameters = {**POLICY, "checkpoint": str(checkpoint), **(policy or {})}
        self.policy: PolicyNode = graph.add(PolicyNode, **parameters)
        self.executor: ChunkExecutor = graph.add(
            remapped(ChunkExecutor), **{**EXECUTOR, **(executor or {})}
        )
        repeats = (executor or {}).get("hold") == "repeat"
        self.judge = Judge(graph, repeats=repeats)
        self.diagnostics: list[DiagnosticArray] = graph.listen(DiagnosticArray, "/diagnostics")
        self.go("configure", "activate")
        self.sensors = Sensors(graph, now_ns or self.now_ns)

    def go(self, *transitions: str) -> None:
        for transition in transitions:
            outcome = getattr(self.policy, f"trigger_{transition}")()
            assert outcome == TransitionCallbackReturn.SUCCESS, transition

    def now_ns(self) -> int:
        return int(self.policy.get_clock().now().nanoseconds)

    def wait_for_motion(self) -> None:
        """Commands of a chunk that is newer than all so far."""
        known_chunks, known = len(self.judge.chunks), len(self.judge.commands)
        self.graph.wait(lambda: len(self.judge.chunks) > known_chunks)
        self.graph.wait(lambda: len(self.judge.commands) > known + 3)

    def wait_for_hold(self, reason: str, level: bytes | None = None) -> None:
        """`reason` in a status of a node, the last action ends, and none follows."""
        self.wait_for_status(reason, level)
        self.graph.wait(self._stands)

    def _stands(self) -> bool:
        known = len(self.judge.commands)
        self.graph.spin_for(10 / EXECUTOR_HZ)
        return len(self.judge.commands) == known

    def network_policy(self) -> DiffusionPolicy:
        return self.policy._parts.loaded.policy

    def wait_for_status(self, text: str, level: bytes | None = None) -> None:
        """A status that comes from now on."""
        known = len(self.diagnostics)

        def said() -> bool:
            return any(
                text in status.message and level in (None, status.level)
                for array in self.diagnostics[known:]
                for status in array.status
            )

        self.graph.wait(said)


def remapped(make_node: Callable[..., Any]) -> Callable[..., Any]:
    """An executor that listens to the policy node, as the launch file connects them."""
    arguments = ["--ros-args", "-r", "action_chunk:=policy_node/action_chunk"]
    return lambda **options: make_node(cli_args=arguments, **options)
