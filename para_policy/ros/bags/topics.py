"""Which topics a policy node and its executor use, and where they are in a graph or a bag."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from para_policy.ros.messages.inputs import InputMapping

CHUNK, INFO, SETTINGS = "action_chunk", "chunk_info", "settings"
_CHUNK_TYPE = "trajectory_msgs/msg/JointTrajectory"
_INFO_TYPE = "diagnostic_msgs/msg/DiagnosticStatus"
_SETTINGS_TYPE = "std_msgs/msg/String"


def absolute(namespace: str, topic: str) -> str:
    """The full name of a topic that is relative to a namespace.

    >>> absolute("/arm", "joint_states"), absolute("/", "tf"), absolute("arm", "/clock")
    ('/arm/joint_states', '/tf', '/clock')
    """
    if topic.startswith("/"):
        return topic
    parts = [part for part in (namespace.strip("/"), topic) if part]
    return "/" + "/".join(parts)


def of_inputs(
    namespace: str, robots: Sequence[str], inputs: Mapping[str, InputMapping]
) -> list[str]:
    """Topics of the observations; `robots` are namespaces within `namespace`."""
    places = [absolute(namespace, robot) for robot in robots] or [namespace]
    return [absolute(place, mapping.topic) for place in places for mapping in inputs.values()]


def of_nodes(namespace: str, policy_node: str, robots: Sequence[str]) -> list[str]:
    """What the policy node and the executors of its robots say, and the diagnostics."""
    places = [absolute(namespace, robot) for robot in robots] or [namespace]
    spoken = [f"{policy_node}/{CHUNK}", f"{policy_node}/{INFO}", "chunk_executor/command"]
    said = [absolute(place, topic) for place in places for topic in spoken]
    return [*said, absolute(namespace, f"{policy_node}/{SETTINGS}"), "/diagnostics"]


def recorded_policies(topics: Mapping[str, str]) -> list[str]:
    """Full names of the nodes whose chunks a bag holds, one for each robot: "/arm/policy_node"."""
    nodes = _ending(topics, INFO, _INFO_TYPE)
    return sorted(n for n in nodes if topics.get(f"{n}/{CHUNK}") == _CHUNK_TYPE)


def settings_topics(topics: Mapping[str, str]) -> list[str]:
    """Topics of a bag that hold settings of policy nodes."""
    return [f"{node}/{SETTINGS}" for node in _ending(topics, SETTINGS, _SETTINGS_TYPE)]


def namespace_of(node: str) -> str:
    """The namespace of a node's full name."""
    return node.rpartition("/")[0] or "/"


def _ending(topics: Mapping[str, str], name: str, kind: str) -> Iterable[str]:
    ending = f"/{name}"
    return [t.removesuffix(ending) for t, k in topics.items() if t.endswith(ending) and k == kind]
