"""Topics and the service of one robot of a policy node: its publishers are made here."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.graph import (
    InputSources,
    absolute,
    full_topic,
    publishers,
    qos_conflicts,
    qos_for,
    rivals,
    type_conflicts,
)
from para_policy.ros.messages.conversions import chunk_to_message
from para_policy.ros.messages.input_files import PolicyInputs
from para_policy.ros.messages.input_reader import InputReader
from para_policy.ros.messages.inputs import InputMapping
from para_policy.ros.messages.markers import check_axes, chunk_markers
from para_policy.ros.parameters.policy import Values

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig


@dataclass(frozen=True)
class ChunkFormat:
    """Form in which chunks are published.

    Attributes:
        joint_names: of the actions.
        on_arrival: stamp chunks with zero, so that they are played from their arrival on.
        marker_frame: frame in which they are drawn for RViz; empty: not at all.
        marker_axes: action coordinates that are x and y, or x, y and z.
        marker_scale: metres per action unit.
    """

    joint_names: Sequence[str]
    on_arrival: bool
    marker_frame: str
    marker_axes: Sequence[int]
    marker_scale: float


def chunk_format(values: Values, config: PolicyConfig) -> ChunkFormat:
    """Form of chunks that the parameters ask for.

    Raises:
        InputError: when there are not as many joint names as actions, they are those of the actions in
            another order, or there are no such axes.
    """
    joints = [name for name in values["joint_names"] if name] or list(config.action_names)
    twice = sorted({joint for joint in joints if joints.count(joint) > 1})
    if twice:
        raise InputError(f"joint_names have {', '.join(twice)} more than once; expected each once")
    if len(joints) != config.action_dim:
        raise InputError(f"joint_names are {joints}; the policy has {config.action_dim} actions")
    if joints != list(config.action_names) and sorted(joints) == sorted(config.action_names):
        raise InputError(
            f"joint_names are {joints}, the names of the policy's actions in another order: each joint "
            f"would get the action of another; expected {list(config.action_names)}, or other names"
        )
    axes = list(values["marker_axes"])
    if values["marker_frame"]:
        check_axes(axes, config.action_dim)
    frame, scale = values["marker_frame"], values["marker_scale"]
    return ChunkFormat(joints, values["stamp_mode"] == "zero", frame, axes, scale)


class RobotTopics:
    """Publishers, subscriptions and the service of one robot, from on_configure until `close`.

    What was made before an error is removed, too.

    Args:
        robot: name before all topics, see `topic_of`; empty where there is only one.
        inputs: topics that feed the policy.
        max_age_s: of observations whose mapping gives none.
        observe: called with the name of an input, the reader of its topic, and a message of it.
        reset: answers the reset service.
        lockstep: parameter of the node.
    """

    def __init__(
        self,
        node: LifecycleNode,
        robot: str,
        inputs: PolicyInputs,
        max_age_s: float,
        observe: Callable[[str, InputReader, Any], None],
        reset: Callable[[Trigger.Request, Trigger.Response], Trigger.Response],
        chunks: ChunkFormat,
        *,
        lockstep: bool,
    ) -> None:
        self._readers = {
            name: InputReader(mapping, inputs.shapes[name], max_age_s)
            for name, mapping in inputs.items()
        }
        self._node = node
        self._format = chunks
        self._types: dict[str, str] = {}
        self._qos: dict[str, Any] = {}
        self._observe = observe
        self._sources = {n: InputSources(shared=bool(i.joints)) for n, i in inputs.items()}
        self._topics: dict[str, str] = {}
        own = f"{robot}/{node.get_name()}" if robot else "~"
        with ExitStack() as undo:

            def publisher(kind: type, topic: str, qos: Any) -> Any:
                made = node.create_lifecycle_publisher(kind, f"{own}/{topic}", qos)
                undo.callback(node.destroy_lifecycle_publisher, made)
                return made

            self._chunks = publisher(JointTrajectory, "action_chunk", qos_for(lockstep))
            self._infos = publisher(DiagnosticStatus, "chunk_info", 10)
            self._markers = publisher(MarkerArray, "markers", 1) if chunks.marker_frame else None
            service = node.create_service(Trigger, f"{own}/reset", reset)
            undo.callback(node.destroy_service, service)
            for name, reader in self._readers.items():
                mapping = reader.mapping
                qos = mapping.qos(lockstep=lockstep)
                topic = topic_of(mapping.topic, robot)
                self._check_type(name, mapping, full_input_topic(node, name, mapping, robot))
                subscription = node.create_subscription(
                    mapping.message,
                    topic,
                    functools.partial(self._hear, name, reader),
                    qos,
                )
                undo.callback(node.destroy_subscription, subscription)
                self._topics[name] = subscription.topic_name
                self._types[subscription.topic_name] = mapping.type
                self._qos[subscription.topic_name] = qos
            self._undo = undo.pop_all()

    def _check_type(self, name: str, mapping: InputMapping, full: str) -> None:
        """One topic has one type, however its name is spelled."""
        known = self._types.get(full, mapping.type)
        if known != mapping.type:
            raise InputError(
                f"input {name!r} expects {mapping.type} on {full}, of which another input expects "
                f"{known}; expected one type for a topic"
            )

    def _hear(self, name: str, reader: InputReader, message: Any, info: dict[str, Any]) -> None:
        number = info.get("publication_sequence_number")
        parts = reader.mapping.parts(message)
        self._sources[name].heard(parts, number, time.monotonic())
        self._observe(name, reader, message)

    def rival_inputs(self) -> dict[str, str]:
        """Inputs that more than one node sends, and what is wrong."""
        found = {}
        for name, topic in self._topics.items():
            names = publishers(self._node, topic)
            if problem := self._sources[name].problem(topic, names, time.monotonic()):
                found[name] = problem
        return found

    def publish_chunk(self, chunk: ActionChunk) -> None:
        how = self._format
        message = chunk_to_message(chunk, list(how.joint_names), on_arrival=how.on_arrival)
        self._chunks.publish(message)
        if self._markers is not None:
            axes, scale = how.marker_axes, how.marker_scale
            markers = chunk_markers(chunk, axes, scale, how.marker_frame, self._chunks.topic_name)
            self._markers.publish(markers)

    def publish_info(self, status: DiagnosticStatus) -> None:
        self._infos.publish(status)

    def joint_ages_s(self, now_ns: int) -> dict[str, float]:
        """Age of the newest values of joints that do not come all at once, by "INPUT/JOINT"."""
        return {
            f"{name}/{joint}": age_s
            for name, reader in self._readers.items()
            for joint, age_s in reader.joint_ages_s(now_ns).items()
        }

    def forget(self) -> None:
        """Forget what the topics have brought, as at the start of an episode."""
        for reader in self._readers.values():
            reader.clear()

    def conflicts(self) -> list[str]:
        """Publishers that this node cannot hear, and other nodes that publish chunks as it does."""
        return [
            *type_conflicts(self._node, self._types),
            *qos_conflicts(self._node, self._qos),
            *rivals(self._node, self._chunks.topic_name),
        ]

    def close(self) -> None:
        self._undo.close()


def input_topics(
    node: LifecycleNode, inputs: PolicyInputs, robots: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Full names of all topics, by the namespace of each robot and the name of the input or part.

    Raises:
        InputError: as `full_input_topic`.
    """
    return {
        absolute(node.get_namespace(), robot): {
            name: full_input_topic(node, name, mapping, robot) for name, mapping in inputs.items()
        }
        for robot in robots
    }


def full_input_topic(node: LifecycleNode, name: str, mapping: InputMapping, robot: str) -> str:
    """Full name of the topic of an input, as remapped.

    Raises:
        InputError: when there can be no such topic, as a robot's name before it makes none of some.
    """
    topic = topic_of(mapping.topic, robot)
    try:
        return full_topic(topic, node)
    except InputError as error:
        raise InputError(f"input {name!r} comes from '{topic}', which is {error}") from error


def topic_of(topic: str, robot: str) -> str:
    """A robot's own topic; one that begins with a slash is the same for all robots."""
    return f"{robot}/{topic}" if robot and not topic.startswith("/") else topic
