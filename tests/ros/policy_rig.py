"""A policy node under test, everything it says, and sensors to feed it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Pose, PoseArray
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from para_policy.ros.messages.conversions import ns_to_stamp
from para_policy.ros.messages.diagnostics import status_values
from para_policy.ros.policy_node import PolicyNode
from para_policy.ros.serving.configured import Configured
from tests.ros.graph import CONFIG, Graph

DT_NS = 100_000_000
T0 = 50 * 10**9
AGENT = [100.0, 200.0]
KEYPOINTS = np.linspace(50.0, 400.0, 16)
ROBOTS = ("left", "right")


class Rig:
    """A policy node, everything it says, and sensors to feed it.

    Args:
        remapped: names of the node and of its topics, and what they are called instead.
    """

    def __init__(
        self, graph: Graph, remapped: Mapping[str, str] = MappingProxyType({}), **parameters: Any
    ) -> None:
        self.graph = graph
        self.joint_states = remapped.get("joint_states", "joint_states")
        remap = ["--ros-args"]
        for name, other in remapped.items():
            remap += ["-r", f"{name}:={other}"]
        self.node: PolicyNode = graph.add(
            functools.partial(PolicyNode, cli_args=remap),
            **{
                "inputs_file": str(CONFIG / "pusht_inputs.yaml"),
                "sampler": "sequential",
                "seed": 7,
                "lockstep": True,
                "engine": "eager",
                **parameters,
            },
        )
        self.chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
        self.infos = graph.listen(DiagnosticStatus, "policy_node/chunk_info")
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")

    def start(self) -> Rig:
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.joints = self.graph.talk(JointState, self.joint_states)
        self.keypoints = self.graph.talk(PoseArray, "keypoints")
        publishers = ("policy_node/action_chunk", "policy_node/chunk_info")
        self.graph.wait(lambda: all(self.graph.probe.count_publishers(t) for t in publishers))
        return self

    def observe(
        self,
        stamp_ns: int,
        agent: list[float] = AGENT,
        names: tuple[str, ...] = ("agent_x", "agent_y"),
    ) -> None:
        joints = JointState(name=list(names), position=agent)
        keypoints = PoseArray()
        for x, y in KEYPOINTS.reshape(-1, 2).tolist():
            pose = Pose()
            pose.position.x, pose.position.y = x, y
            keypoints.poses.append(pose)
        joints.header.stamp = keypoints.header.stamp = ns_to_stamp(stamp_ns)
        self.keypoints.publish(keypoints)
        self.joints.publish(joints)

    def plan(self, stamp_ns: int) -> JointTrajectory:
        """The chunk that answers an observation."""
        known = len(self.chunks)
        self.observe(stamp_ns)
        self.graph.wait(lambda: len(self.chunks) > known)
        return self.chunks[-1]

    def wait_for_status(self, level: bytes, text: str) -> None:
        self.graph.wait(
            lambda: any(
                status.level == level and text in status.message
                for message in self.diagnostics
                for status in message.status
            )
        )

    def plan_now(self) -> JointTrajectory:
        """The chunk that answers an observation of this moment."""
        return self.plan(self.now_ns())

    def now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def info(self) -> dict[str, str]:
        """What is said of the last chunk."""
        self.graph.wait(lambda: len(self.infos) == len(self.chunks))
        return status_values(self.infos[-1])

    def set(self, **values: Any) -> str:
        """Set parameters, all or none; the reason where that is refused."""
        parameters = [rclpy.Parameter(name, value=value) for name, value in values.items()]
        result = self.node.set_parameters_atomically(parameters)
        return "" if result.successful else str(result.reason)


class Pair:
    """A node that serves two robots, and their sensors."""

    def __init__(self, graph: Graph, checkpoint: Any, **parameters: Any) -> None:
        self.graph = graph
        self.node: PolicyNode = graph.add(
            PolicyNode,
            checkpoint=str(checkpoint),
            inputs_file=str(CONFIG / "pusht_inputs.yaml"),
            sampler="sequential",
            seed=7,
            lockstep=True,
            engine="eager",
            robots=list(ROBOTS),
            **parameters,
        )
        self.chunks = {
            r: graph.listen(JointTrajectory, f"{r}/policy_node/action_chunk") for r in ROBOTS
        }
        self.infos = {
            r: graph.listen(DiagnosticStatus, f"{r}/policy_node/chunk_info") for r in ROBOTS
        }
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.joints = {r: graph.talk(JointState, f"{r}/joint_states") for r in ROBOTS}
        self.keypoints = {r: graph.talk(PoseArray, f"{r}/keypoints") for r in ROBOTS}
        topics = [f"{r}/policy_node/{t}" for r in ROBOTS for t in ("action_chunk", "chunk_info")]
        graph.wait(lambda: all(graph.probe.count_publishers(t) for t in topics))

    @property
    def parts(self) -> Configured:
        assert self.node._parts is not None
        return self.node._parts

    def observe(self, robot: str, stamp_ns: int, x: float) -> None:
        joints = JointState(name=["agent_x", "agent_y"], position=[x, 200.0])
        keypoints = PoseArray()
        for px, py in KEYPOINTS.reshape(-1, 2).tolist():
            pose = Pose()
            pose.position.x, pose.position.y = px, py
            keypoints.poses.append(pose)
        joints.header.stamp = keypoints.header.stamp = ns_to_stamp(stamp_ns)
        self.keypoints[robot].publish(keypoints)
        self.joints[robot].publish(joints)

    def actions(self, robot: str) -> np.ndarray:
        return np.array([list(point.positions) for point in self.chunks[robot][-1].points])
