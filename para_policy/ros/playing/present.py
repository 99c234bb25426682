"""The present state of the robot: of its joints, of its tool, or of both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState

from para_policy.errors import InputError, ParaPolicyError
from para_policy.execution.commander import RobotState
from para_policy.execution.coordinates import Coordinates
from para_policy.execution.guards import Limits
from para_policy.ros.graph import InputSources, publishers
from para_policy.ros.messages.commands import OUTPUTS
from para_policy.ros.messages.conversions import pose_to_state, stamp_to_ns
from para_policy.ros.messages.joints import NewestJoints
from para_policy.ros.playing.controllers import Controller

_POSE = OUTPUTS["pose_stamped"]


@dataclass(frozen=True)
class StateSource:
    """Topics that tell where a part of the robot is, and how their messages are read.

    Attributes:
        places: of its values in the command; None: all of them.
        read: the state in a message that counts from a time in nanoseconds; None where it is about
            other joints.
        parts: what a message tells of this part, by name.
        missing: why no message has given a state yet; empty as long as it may still come.
    """

    topics: tuple[str, ...]
    message: type
    places: tuple[int, ...] | None
    read: Callable[[Any, int], RobotState | None]
    parts: Callable[[Any], Iterable[str]]
    missing: Callable[[], str]


def state_sources(
    given: Mapping[str, Any], limits: Limits, controllers: Sequence[Controller]
) -> tuple[StateSource, ...]:
    """What the limits need; nothing where they need no state.

    Args:
        given: all parameters of chunk_executor.
    """
    twist = OUTPUTS["twist_stamped"] in [controller.output for controller in controllers]
    if twist or not (limits.need_state or limits.motion):
        return ()
    joints = given["state_joints"] or given["joint_names"]
    axes = "xyz" if given["fixed_orientation"] else "pose"
    read_pose = partial(pose_to_state, axes=axes, frame_id=given["frame_id"])
    newest_of = partial(NewestJoints, max_age_ns=round(1e9 * given["max_state_age_s"]))
    topics = tuple(given["state_topics"])
    if len(controllers) == 1:
        if controllers[0].output is _POSE:
            return (_of_pose(None, read_pose),)
        return (_of_joints(topics, None, joints, newest_of(joints)),)
    places = list(range(sum(given["command_sizes"])))
    found, of_joints = [], list[int]()
    for controller in controllers:
        mine = places[controller.places]
        if controller.output is _POSE:
            found.append(_of_pose(tuple(mine), read_pose))
        else:
            of_joints += mine
    if of_joints:
        named = [joints[place] for place in of_joints]
        found.append(_of_joints(topics, tuple(of_joints), named, newest_of(named)))
    return tuple(found)


def _of_pose(
    places: tuple[int, ...] | None, read: Callable[[PoseStamped, int], RobotState]
) -> StateSource:
    return StateSource(
        ("present_pose",), PoseStamped, places, read, lambda _: ("pose",), lambda: ""
    )


def _of_joints(
    topics: tuple[str, ...],
    places: tuple[int, ...] | None,
    joints: Sequence[str],
    newest: NewestJoints,
) -> StateSource:
    return StateSource(
        topics,
        JointState,
        places,
        newest.state,
        lambda message: set(joints).intersection(message.name),
        lambda: "" if newest.waiting else newest.passed_over,
    )


class PresentState:
    """Listens to all sources and puts together what they tell.

    Args:
        coordinates: of the whole command.
        now_ns: the time.
        max_ahead_ns: a message that is stamped further ahead of the clock is not read.
    """

    def __init__(
        self,
        node: Node,
        sources: Sequence[StateSource],
        coordinates: Coordinates,
        now_ns: Callable[[], int],
        max_ahead_ns: int,
    ) -> None:
        self._node, self._sources, self._now_ns = node, sources, now_ns
        self._max_ahead_ns = max_ahead_ns
        self._coordinates = coordinates
        self._newest: list[RobotState | None] = [None] * len(sources)
        self._ahead_ns: dict[tuple[str, str], int] = {}  # by topic and part
        self._publishers: dict[str, InputSources] = {}
        for index, source in enumerate(sources):
            for topic in source.topics:
                name = node.resolve_topic_name(topic)
                self._publishers.setdefault(name, InputSources(shared=source.message is JointState))
                hear: Any = partial(self._hear, index, name)  # rclpy types no message info
                node.create_subscription(source.message, topic, hear, qos_profile_sensor_data)

    def rivals(self) -> str:
        """Who tells two states of the same part of the robot; empty: nobody does."""
        return "; ".join(
            problem
            for topic, known in self._publishers.items()
            if (problem := known.problem(topic, publishers(self._node, topic), time.monotonic()))
        )

    def ahead_ns(self) -> dict[str, int]:
        """By how much the newest messages of each topic were stamped ahead of the clock on arrival."""
        largest: dict[str, int] = {}
        for (topic, _), ahead_ns in self._ahead_ns.items():
            largest[topic] = max(ahead_ns, largest.get(topic, ahead_ns))
        return largest

    def state(self) -> RobotState | None:
        """Of all parts, with the time of the oldest; None before all have told theirs, or where it
        means nothing: no command can be compared to that.
        """
        state = self._whole()
        try:
            if state is not None:
                self._coordinates.canonical(state.positions)
        except ParaPolicyError as error:
            self._node.get_logger().warning(f"state: {error}", throttle_duration_sec=1.0)
            return None
        return state

    def _whole(self) -> RobotState | None:
        newest = [state for state in self._newest if state is not None]
        if not newest or len(newest) < len(self._sources):
            return None
        if len(newest) == 1:
            return newest[0]
        positions = np.empty(sum(len(state.positions) for state in newest))
        for source, state in zip(self._sources, newest, strict=True):
            positions[list(source.places or ())] = state.positions
        return RobotState(min(state.stamp_ns for state in newest), positions)

    def _hear(self, index: int, topic: str, message: Any, info: dict[str, Any]) -> None:
        """A state that cannot be read is as good as none."""
        source = self._sources[index]
        number = info.get("publication_sequence_number")
        parts = tuple(source.parts(message))
        self._publishers[topic].heard(parts, number, time.monotonic())
        now_ns = self._now_ns()
        if now_ns == 0:
            return  # no tick of a simulated clock yet
        ahead_ns = (stamp_to_ns(message.header.stamp) or now_ns) - now_ns
        self._ahead_ns |= dict.fromkeys(((topic, part) for part in parts), ahead_ns)
        try:
            if parts and ahead_ns > self._max_ahead_ns:
                raise InputError(
                    f"stamped {ahead_ns / 1e9:.3f} s ahead of the clock, expected at most "
                    f"{self._max_ahead_ns / 1e9:g} s; do the clocks agree?"
                )
            state = source.read(message, now_ns + min(ahead_ns, 0))
            if state is None and self._newest[index] is None and (reason := source.missing()):
                raise InputError(reason)
        except ParaPolicyError as error:
            # Of several topics another one may be to blame: the one that says nothing.
            heard = topic if len(source.topics) == 1 else f"after a message on {topic}"
            self._node.get_logger().warning(f"{heard}: {error}", throttle_duration_sec=1.0)
        else:
            self._newest[index] = state or self._newest[index]
