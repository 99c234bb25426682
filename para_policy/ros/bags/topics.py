"""Topics of a policy node and its executors: those to record, and those that a bag holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from para_policy.ros.graph import absolute
from para_policy.ros.messages.input_files import InputForms, topics_of

CHUNK, INFO, SETTINGS = "action_chunk", "chunk_info", "settings"
CHUNK_TYPE = "trajectory_msgs/msg/JointTrajectory"
INFO_TYPE = "diagnostic_msgs/msg/DiagnosticStatus"
_SETTINGS_TYPE = "std_msgs/msg/String"


@dataclass(frozen=True)
class RecordedNodes:
    """The nodes that are recorded: a policy node and the executors of its robots.

    Attributes:
        inputs: of the policy, by name; None to learn them from the settings message.
        namespace: of the nodes.
        policy_node: name of the policy node.
        robots: namespaces of the robots that it serves, within `namespace`; none: itself.
        remapped: full names of the topics of all inputs, where they are known; else they are those of
            `inputs`.
    """

    inputs: InputForms | None = None
    namespace: str = "/"
    policy_node: str = "policy_node"
    robots: tuple[str, ...] = ()
    remapped: frozenset[str] = frozenset()

    @property
    def executors(self) -> set[str]:
        """Full names of the executors, whose commands may have topics of their own."""
        return {absolute(place, "chunk_executor") for place in self._places}

    @property
    def _places(self) -> list[str]:
        """Namespaces of the robots."""
        return [absolute(self.namespace, robot) for robot in self.robots] or [self.namespace]

    @property
    def settings_topic(self) -> str:
        return absolute(self.namespace, f"{self.policy_node}/{SETTINGS}")

    def topics(self) -> set[str]:
        """All topics of the nodes and of the policy's inputs, as far as these are known."""
        of_robots = self._of_robots(
            f"{self.policy_node}/{CHUNK}", f"{self.policy_node}/{INFO}", "chunk_executor/command"
        )
        return {*of_robots, *self.needed(), "/diagnostics", "/clock"}

    def needed(self) -> set[str]:
        """Topics without which no replay is possible, as far as they are known."""
        seen = (mapping.topic for mapping in topics_of(self.inputs or {}).values())
        return {self.settings_topic, *(self.remapped or self._of_robots(*seen))}

    def _of_robots(self, *names: str) -> set[str]:
        return {absolute(place, name) for place in self._places for name in names}


def recorded_policies(topics: Mapping[str, Collection[str]]) -> list[str]:
    """Full names of the nodes whose chunks a bag holds, one for each robot: "/arm/policy_node"."""
    nodes = _ending(topics, INFO, INFO_TYPE)
    return sorted(n for n in nodes if CHUNK_TYPE in topics.get(f"{n}/{CHUNK}", ()))


def settings_topics(topics: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Topics of a bag that hold settings of policy nodes, with their type."""
    nodes = _ending(topics, SETTINGS, _SETTINGS_TYPE)
    return {f"{node}/{SETTINGS}": _SETTINGS_TYPE for node in nodes}


def namespace_of(node: str) -> str:
    """The namespace of a node's full name."""
    return node.rpartition("/")[0] or "/"


def _ending(topics: Mapping[str, Collection[str]], name: str, kind: str) -> list[str]:
    ending = f"/{name}"
    return [t.removesuffix(ending) for t in topics if t.endswith(ending) and kind in topics[t]]
