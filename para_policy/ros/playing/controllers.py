"""Controllers that share an action: each gets its slice of every command, in its own form."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node

from para_policy.execution.coordinates import NUMBERS, Coordinates, poses
from para_policy.ros.messages.commands import OUTPUTS, Output, OutputOptions
from para_policy.ros.parameters.executor import outputs
from para_policy.ros.playing.rivals import CommandRivals

Array = NDArray[np.float64]
ONLY = "~/command"
_DELIVERY_S = 0.3
"""Longest time for the last command to arrive."""


@dataclass(frozen=True)
class Controller:
    """Receiver of a slice of each command.

    Attributes:
        places: of its values in the command.
        coordinates: what these mean; None: the form of the messages does not tell.
    """

    topic: str
    places: slice
    output: Output
    options: OutputOptions
    coordinates: Coordinates | None

    def message(self, command: Array, now_ns: int) -> Any:
        """The message for it out of a command (A,) for all."""
        return self.output.write(command[self.places], now_ns, self.options)


def make_controllers(given: Mapping[str, Any], options: OutputOptions) -> tuple[Controller, ...]:
    """Those of `command_topics`, or the only one.

    Args:
        options: with the names of all joints.
    """
    topics = given["command_topics"] or [ONLY]
    ends: Sequence[int | None] = [None]
    if given["command_topics"]:
        ends = list(accumulate(given["command_sizes"]))
    made = []
    for topic, name, first, end in zip(topics, outputs(given), [0, *ends], ends, strict=False):
        places = slice(first, end)
        made.append(
            Controller(
                topic,
                places,
                OUTPUTS[name],
                replace(options, joint_names=list(options.joint_names)[places]),
                _known_coordinates(name, options),
            )
        )
    return tuple(made)


def _known_coordinates(output: str, options: OutputOptions) -> Coordinates | None:
    if output == "pose_stamped":
        return NUMBERS if options.fixed_orientation else poses()
    return NUMBERS if output == "twist_stamped" else None


def coordinates_of(controllers: Sequence[Controller], told: Coordinates) -> Coordinates:
    """What the whole command means: as the outputs say, and `told` of all others.

    Raises:
        InputError: when `told` has coordinates of which an output says what they are.
    """
    if len(controllers) == 1:
        return controllers[0].coordinates or told
    groups = list(told.groups)
    for controller in controllers:
        if controller.coordinates is not None:
            places = range(controller.places.start, controller.places.stop)
            groups += controller.coordinates.within(places)
    return Coordinates(tuple(groups))


class CommandTopics:
    """Publishers of the commands of all controllers."""

    def __init__(self, node: Node, controllers: Sequence[Controller], qos: Any) -> None:
        self._controllers = controllers
        self._publishers = []
        self._rivals = []
        for controller in controllers:
            message = controller.output.message
            publisher = node.create_publisher(message, controller.topic, qos)
            self._publishers.append(publisher)
            self._rivals.append(CommandRivals(node, publisher, message, qos))

    def send(self, command: Array, now_ns: int) -> None:
        """Publish the slices of a command (A,); none where one of them cannot be written."""
        messages = [controller.message(command, now_ns) for controller in self._controllers]
        for publisher, rivals, message in zip(
            self._publishers, self._rivals, messages, strict=True
        ):
            publisher.publish(message)
            rivals.count_sent()

    def wait_until_heard(self) -> None:
        """Wait until every controller has what was sent, but not for long: one may be dead."""
        until = time.monotonic() + _DELIVERY_S
        for publisher in self._publishers:
            left_s = max(until - time.monotonic(), 0.0)
            publisher.wait_for_all_acked(Duration(seconds=left_s))

    def rivals(self) -> str:
        """Who else may command a part of the robot, and what to do; empty: nobody."""
        return "; ".join(filter(None, (rivals.problem() for rivals in self._rivals)))

    def absent(self) -> str:
        """Why no controller may move: one of several does not listen; empty where all do."""
        if len(self._publishers) == 1:
            return ""
        deaf = [p.topic_name for p in self._publishers if not p.get_subscription_count()]
        return f"nobody listens to {', '.join(deaf)}, and the others wait for it" if deaf else ""
