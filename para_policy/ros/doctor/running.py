"""Running nodes: their names, their parameters, and the inputs that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from std_msgs.msg import String

from para_policy.checkpoints.load import read_checkpoint, resolve
from para_policy.errors import ParaPolicyError
from para_policy.planning.trained import TrainedScale
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.listener import Listener
from para_policy.ros.doctor.report import Finding, skipped
from para_policy.ros.doctor.streams import Expected, Stream
from para_policy.ros.graph import LATCHED
from para_policy.ros.messages.input_files import PolicyInputs, load_inputs
from para_policy.ros.messages.inputs import InputMapping
from para_policy.ros.messages.settings import read_settings
from para_policy.ros.serving.planner_settings import trained_scales

if TYPE_CHECKING:
    from para_policy.checkpoints.checkpoint import Checkpoint

POLICY_NODE, EXECUTOR_NODE = "policy_node", "chunk_executor"
_TOLD_S = 2.0
Topics = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Names:
    """Nodes with their namespaces; a robot's name is its namespace below that of policy_node."""

    namespace: str
    robots: tuple[str, ...] = ("",)

    @property
    def policy(self) -> str:
        return _join(self.namespace, POLICY_NODE)

    @property
    def executors(self) -> list[str]:
        return [_join(self.namespace, robot, EXECUTOR_NODE) for robot in self.robots]

    def all(self) -> list[str]:
        return [self.policy, *self.executors]

    def topic(self, robot: str, topic: str) -> str:
        """Full name of an input's topic."""
        below = topic if topic.startswith(("/", "~")) or not robot else f"{robot}/{topic}"
        return str(expand_topic_name(below, POLICY_NODE, self.namespace))


def _join(*parts: str) -> str:
    return "/" + "/".join(part.strip("/") for part in parts if part.strip("/"))


def running_values(listener: Listener, name: str) -> dict[str, Any]:
    """All parameters of a running node; empty where there is none, or it does not answer.

    They are listed first: a node answers with nothing at all when one of the names is not its own.
    """
    pairs = listener.node.get_node_names_and_namespaces()
    if name not in {_join(namespace, base) for base, namespace in pairs}:
        return {}
    listed = listener.call(ListParameters, f"{name}/list_parameters", ListParameters.Request())
    if listed is None:
        return {}
    names = list(listed.result.names)
    request = GetParameters.Request(names=names)
    answer = listener.call(GetParameters, f"{name}/get_parameters", request)
    if answer is None:
        return {}
    values = map(parameter_value_to_python, answer.values)
    return {name: value for name, value in zip(names, values, strict=False) if value is not None}


def told_topics(listener: Listener, policy: str) -> Topics:
    """Full names of the topics of all inputs, as `RecordedSettings.topics`; {} where the node is not
    active, or of an older release."""
    topic, told = f"{policy}/settings", list[String]()
    if not listener.node.count_publishers(topic):
        return {}
    listener.node.create_subscription(String, topic, told.append, LATCHED)
    listener.wait(lambda: told, _TOLD_S)
    try:
        return read_settings(told[-1].data).topics if told else {}
    except ParaPolicyError:
        return {}


def make_streams(
    node: Node, names: Names, case: Case, values: Mapping[str, Any], told: Topics
) -> tuple[list[Finding], list[Stream]]:
    """Listen to all inputs of all robots; a finding where it is not known what they are.

    Args:
        told: what the node says of its topics.
    """
    try:
        checkpoint, inputs = _known(case, values)
    except ParaPolicyError as error:
        return [skipped("inputs", f"not known here: {error}", "run the doctor beside the node")], []
    if checkpoint is None or inputs is None:
        advice = "give --params-file, or --checkpoint and --inputs-file"
        return [skipped("inputs", "not known without checkpoint and inputs file", advice)], []
    config = checkpoint.config
    scales = _scales(checkpoint, inputs)
    expected = Expected(
        control_rate_hz=values["control_rate_hz"] or config.control_hz,
        max_age_s=values["max_observation_age_s"],
        lockstep=values["lockstep"],
        n_obs_steps=config.n_obs_steps,
        max_future_s=values["max_future_s"],
        spacing_tolerance=values["spacing_tolerance"],
        rival_inputs=values["rival_inputs"],
    )
    streams = []
    for robot in names.robots:
        for name, mapping in inputs.items():
            of_robot = told.get(_join(names.namespace, robot), {})
            topic = names.topic(robot, mapping.topic)
            topic = _heard(node, names, of_robot.get(name, topic), topic, mapping)
            subject = f"{robot}: {name}" if robot else name
            shape = inputs.shapes[name]
            streams.append(Stream(node, subject, topic, mapping, shape, expected, scales.get(name)))
    return [], streams


def _known(case: Case, values: Mapping[str, Any]) -> tuple[Checkpoint | None, PolicyInputs | None]:
    """Files that the running node reads, which need not be those that were examined before."""
    if not values["checkpoint"] or not values["inputs_file"]:
        return None, None
    checkpoint = read_checkpoint(resolve(values["checkpoint"]))
    return checkpoint, load_inputs(values["inputs_file"], checkpoint.config.inputs)


def _scales(checkpoint: Checkpoint, inputs: PolicyInputs) -> dict[str, TrainedScale]:
    """How the policy knows the values of each topic."""
    found: dict[str, TrainedScale] = {}
    for name, whole in trained_scales(checkpoint.config, checkpoint.normalizers).items():
        first = 0
        for topic in inputs.parts.get(name, (name,)):
            width = math.prod(inputs.shapes[topic])
            found[topic] = whole.part(first, width)
            first += width
    return found


def _heard(node: Node, names: Names, told: str, topic: str, mapping: InputMapping) -> str:
    """The topic after remapping: what policy_node has told if it hears that, or else the only one of
    this type that it hears."""
    try:
        heard = node.get_subscriber_names_and_types_by_node(POLICY_NODE, names.namespace)
    except Exception:  # the node is gone, or not running
        return topic
    same = [name for name, types in heard if mapping.type in types]
    if told in same:
        return told
    return same[0] if topic not in same and len(same) == 1 else topic
