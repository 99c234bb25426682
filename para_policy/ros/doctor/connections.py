"""Connections from policy_node to whoever plays its chunks, and from there to the robot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from rclpy.node import Node

from para_policy.ros.doctor.report import Finding, fail, ok, warn
from para_policy.ros.doctor.streams import same_type
from para_policy.ros.graph import full_name, publishers, qos_conflicts, rivals
from para_policy.ros.messages.commands import COMMAND_TYPES

TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
_STATES = {"sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"}


def check_chunks(node: Node, policy: str, executors: Sequence[str]) -> Iterator[Finding]:
    """Chunk topics of policy_node, whatever they are remapped to; none before it is configured."""
    for topic in published(node, policy, {TRAJECTORY}):
        subject = "chunks"
        yield from _rivals(node, subject, topic, "end all but one, or give each its own namespace")
        if node.get_subscriptions_info_by_topic(topic):
            yield from _subscribers(node, subject, topic, TRAJECTORY)
        elif executors:
            others = [t for t in same_type(node, TRAJECTORY) if t != topic]
            advice = f"remap action_chunk of chunk_executor to it; it may hear {', '.join(others)}"
            yield fail(subject, f"nobody subscribes to {topic}", advice)
        else:
            advice = "start chunk_executor, or remap it to a JointTrajectoryController"
            yield warn(subject, f"nobody subscribes to {topic}", advice)


def check_agreement(
    policy: Mapping[str, Any], executor: Mapping[str, Any], actions: Sequence[str] = ()
) -> Iterator[Finding]:
    """What both nodes must have alike: time, and joints.

    Args:
        policy, executor: parameters of both nodes; one that has no such parameter is passed over.
        actions: names of the policy's actions, which are those of the joints where none are given.
    """
    differing = {
        name: f"{name} is {_shown(policy[name])} of policy_node and {_shown(executor[name])} of "
        "chunk_executor: "
        for name in policy.keys() & executor.keys()
        if policy[name] != executor[name]
    }
    if found := differing.get("latency_offset_s"):
        found += "chunks are planned for other times than they are played at"
        yield warn("latency offset", found, "set the same for both")
    for name in ("lockstep", "use_sim_time"):
        if found := differing.get(name):
            found += "they do not have the same time, and chunks are refused"
            yield fail("time", found, f"set {name} alike on all nodes")
    sent = [joint for joint in policy.get("joint_names", ()) if joint] or list(actions)
    expected = [joint for joint in executor.get("joint_names", ()) if joint]
    if sent and expected and sent != expected:
        found = f"chunks are for {sent}, and joint_names of chunk_executor are {expected}"
        advice = "give both nodes the same joint_names, in the order of the actions"
        yield fail("joint names", f"{found}: it refuses them all", advice)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_commands(node: Node, executor: str) -> Iterator[Finding]:
    """The command topics of an executor, whatever they are remapped to."""
    for topic in published(node, executor, COMMAND_TYPES):
        subject = "commands"
        yield from _rivals(node, subject, topic, "end all but one: they would fight for the robot")
        kind = next(p.topic_type for p in node.get_publishers_info_by_topic(topic))
        if node.get_subscriptions_info_by_topic(topic):
            yield from _subscribers(node, subject, topic, kind)
            continue
        others = [t for t in same_type(node, kind) if t != topic]
        advice = "remap it to the controller's topic"
        advice += f"; topics of this type: {', '.join(others)}" if others else f", a {kind}"
        yield fail(subject, f"nobody subscribes to {topic}: the robot does not move", advice)


def check_state(node: Node, executor: str) -> Iterator[Finding]:
    """The topic on which an executor with limits hears where the robot is."""
    for topic in _topics(node, executor, _STATES, node.get_subscriptions_info_by_topic):
        if names := publishers(node, topic):
            yield ok("state", f"{topic} from {', '.join(sorted(set(names)))}")
        else:
            found = f"nobody publishes {topic}, without which {executor} does not begin to move"
            yield fail("state", found, "start the broadcaster, or remap the topic to it")


def _rivals(node: Node, subject: str, topic: str, advice: str) -> Iterator[Finding]:
    for rivalry in rivals(node, topic):
        yield fail(subject, rivalry, advice)


def _subscribers(node: Node, subject: str, topic: str, kind: str) -> Iterator[Finding]:
    """Subscriptions that the middleware connects, and those that it does not."""
    subscribers = node.get_subscriptions_info_by_topic(topic)
    fitting = [found for found in subscribers if found.topic_type == kind]
    for other in subscribers:
        if other.topic_type != kind:
            found = (
                f"{full_name(other)} expects {other.topic_type} on {topic}, which carries {kind}"
            )
            yield fail(subject, found, "set `output` of chunk_executor, or remap one of the two")
    for subscriber in fitting:
        for conflict in qos_conflicts(node, {topic: subscriber.qos_profile}):
            found, _, advice = conflict.partition("; ")
            found = f"{found} of {full_name(subscriber)}"
            yield fail(subject, found, advice or "let the subscriber ask for less")
    if fitting:
        heard = ", ".join(sorted({full_name(subscriber) for subscriber in fitting}))
        yield ok(subject, f"{topic} goes to {heard}")


def published(node: Node, name: str, kinds: Collection[str]) -> list[str]:
    """Topics of these types that a node publishes."""
    return _topics(node, name, kinds, node.get_publishers_info_by_topic)


def _topics(
    node: Node, name: str, kinds: Collection[str], endpoints: Callable[[str], list[Any]]
) -> list[str]:
    """Topics of these types of which a node has one of the endpoints."""
    return [
        topic
        for topic, types in node.get_topic_names_and_types()
        if set(types) & set(kinds) and name in map(full_name, endpoints(topic))
    ]
