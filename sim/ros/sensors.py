"""Sensors of a simulated task: what it observes, on topics, as well or as badly as real ones do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image

from para_policy.errors import InputError
from para_policy.ros.parameters.declare import Parameter, value
from sim.ros.disturbance import Disturbance, DisturbedPublisher
from sim.tasks.task import Observation

PARAMETERS = (
    Parameter("publish_image", False, "Publish what the task's camera sees."),
    Parameter(
        "observations_per_step",
        1,
        "Observations published for each action; those between two steps are interpolated.",
        (1, 100),
    ),
    Parameter("stamp_jitter_ms", 0.0, "Stamps are off by up to this, either way.", (0.0, 1e3)),
    Parameter("stamp_skew_ms", 0.0, "Stamps are ahead by this; negative: behind.", (-1e5, 1e5)),
    Parameter("drop", 0.0, "Part of the observations that are lost.", (0.0, 1.0)),
    Parameter("duplicate", 0.0, "Part of the observations that are sent twice.", (0.0, 1.0)),
    Parameter("reorder", 0.0, "Part of the observations sent after the next one.", (0.0, 1.0)),
)
Messages = Callable[[Observation], Iterable[tuple[str, Any]]]


class Sensors:
    """Publishers of observations, with the parameters of their node.

    Args:
        messages: topics and messages, without stamps, that tell an observation.
        camera: the image, (height, width, 3) RGB; asked for only where it is published.
        first: an observation, which tells what topics there are.
        dt_ns: time between two actions.

    Raises:
        InputError: when observations are to be disturbed in lockstep.
    """

    def __init__(
        self,
        node: Node,
        messages: Messages,
        camera: Callable[[], NDArray[np.uint8]],
        first: Observation,
        dt_ns: int,
    ) -> None:
        self._messages, self._camera, self._dt_ns = messages, camera, dt_ns
        self._count = int(value(node, "observations_per_step"))
        disturbance = _disturbance(node, self._count)
        topics = {topic: type(message) for topic, message in messages(first)}
        if value(node, "publish_image"):
            topics["image"] = Image
        # Each topic has its own chance.
        self._publishers = {
            topic: DisturbedPublisher(
                node.create_publisher(kind, topic, 10), disturbance, crc32(topic.encode())
            )
            for topic, kind in topics.items()
        }
        self.restart(first)

    def restart(self, observation: Observation) -> None:
        """An episode begins: nothing was before."""
        self._before = observation

    def publish(self, observation: Observation, time_ns: int) -> None:
        """Everything now, and what lies between the last step and this one."""
        self._publish_at(time_ns, observation)
        for part in (
            np.arange(1, self._count) / self._count
        ):  # known only now, and so they come late
            between = {n: (1 - part) * self._before[n] + part * observation[n] for n in observation}
            self._publish_at(time_ns - round((1 - part) * self._dt_ns), between)
        self._before = observation
        if "image" in self._publishers:
            self._publishers["image"].publish(_as_image(self._camera()), time_ns)

    def _publish_at(self, time_ns: int, observation: Observation) -> None:
        for topic, message in self._messages(observation):
            self._publishers[topic].publish(message, time_ns)


def _disturbance(node: Node, observations_per_step: int) -> Disturbance:
    given = {field.name: value(node, field.name) for field in fields(Disturbance)}
    wrong = [name for name in given if given[name]]
    if observations_per_step > 1:
        wrong.append("observations_per_step")
    if value(node, "lockstep") and wrong:
        raise InputError(
            f"{wrong[0]} is {value(node, wrong[0]):g} in lockstep, where each step waits for its "
            f"observations; leave {', '.join(wrong)} out, or set lockstep to false"
        )
    return Disturbance(**given)


def _as_image(pixels: NDArray[np.uint8]) -> Image:
    height, width, _ = pixels.shape
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    image.data = pixels.tobytes()
    return image
