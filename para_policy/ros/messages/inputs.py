"""Mapping of one topic to an input of the policy, or to a part of it: how its messages are read."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy

from para_policy.errors import InputError
from para_policy.execution.coordinates import (
    NUMBERS,
    POSE_DIM,
    Coordinates,
    poses,
    read_coordinates,
)
from para_policy.ros.graph import full_topic
from para_policy.ros.messages.conversions import (
    CONVERTERS,
    POSE_AXES,
    Converter,
    stamp_to_ns,
)
from para_policy.ros.messages.fields import FIELDS, coordinates_of_fields, paths
from para_policy.ros.messages.images import check_encoding
from para_policy.ros.messages.rigid_transform import RigidTransform
from para_policy.ros.messages.types import message_class

Numbers = FiniteFloat | tuple[FiniteFloat, ...]
"""One number for all values of an input, or one for each."""
Crop = tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt]
"""Top, left, height and width, pixels."""
_QUEUE = 10
IMAGE_TYPES = [name for name, converter in CONVERTERS.items() if converter.is_image]
_OPTIONS = frozenset[str]().union(*(converter.options for converter in CONVERTERS.values()))


class InputMapping(BaseModel):
    """One input of the policy, or a part of one that comes from several topics.

    Attributes:
        topic: name of the topic, relative to the node's namespace; launch files can remap it.
        type: message type as `ros2 topic info` prints it.
        joints: (JointState) joints whose values make up the input, in this order.
        fields: (JointState) "position", "velocity", "effort": of all joints the first, then the
            next; empty: positions. (Twist, Wrench, Odometry, Imu) see `messages.fields`; empty: all.
        size: (PoseArray, MultiArray) number of values, where several parts of an input are such.
        axes: (PoseStamped, PoseArray) coordinates of each pose: "xy", "xyz", "pose" with the
            quaternion x, y, z, w after the position, or "pose_wxyz" with w first, as MuJoCo has it.
        crop: (images) the part that is used: top, left, height, width in pixels.
        resize: (images) true where what is left is scaled to the policy's size; otherwise an image of
            another size is refused.
        encoding: (Image) what the camera should have said, where it says "8UC3" or something wrong.
        frame_id: what the header must say; a message in another frame is refused.
        transform: (PoseStamped, PoseArray) moves the poses into the frame of training.
        scale, offset: (not images) a value v, after the transform, becomes v * scale + offset, such
            as degrees for radians; a quaternion must be left as it is.
        reliable: quality of service asked for; false also accepts best-effort publishers, and is
            the default for images, as cameras often publish so.
        max_age_s: when the input counts as stale; None for parameter `max_observation_age_s`.
        latency_s: from the measurement to the time in the stamp (of receipt, without a stamp), which
            is corrected by it.
        interpolation: (not images) value at a time: "hold" takes the nearest one, "linear"
            interpolates between the two around it.
        coordinates: (JointState, MultiArray) what the values are, after scale and offset, as
            `read_coordinates` reads it; those that are not named are not interpolated.
        max_unchanged_s: values that stay exactly the same for longer, by their stamps, count as
            stuck; None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(min_length=1)
    type: str
    joints: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    size: PositiveInt | None = None
    axes: Literal["xy", "xyz", "pose", "pose_wxyz"] = "xy"
    crop: Crop | None = None
    resize: bool = False
    encoding: str | None = None
    frame_id: str | None = Field(default=None, min_length=1)
    transform: RigidTransform | None = None
    scale: Numbers = 1.0
    offset: Numbers = 0.0
    reliable: bool = Field(default_factory=lambda data: data.get("type") not in IMAGE_TYPES)
    max_age_s: float | None = Field(default=None, ge=1e-3, le=3600.0)
    latency_s: float = Field(default=0.0, ge=0.0, le=10.0)
    interpolation: Literal["hold", "linear"] = "hold"
    coordinates: tuple[str, ...] = ()
    max_unchanged_s: float | None = Field(default=None, ge=1e-3, le=3600.0)

    @field_validator("topic")
    @classmethod
    def _possible(cls, name: str) -> str:
        full_topic(name)
        return name

    @field_validator("type")
    @classmethod
    def _supported(cls, name: str) -> str:
        if name not in CONVERTERS:
            short = name.rpartition("/")[2]
            meant = [full for full in CONVERTERS if full.rpartition("/")[2] == short]
            advice = meant[0] if meant else f"one of {', '.join(CONVERTERS)}"
            raise ValueError(f"{name!r} is not supported; choose {advice}")
        return name

    @field_validator("joints")
    @classmethod
    def _different(cls, joints: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({joint for joint in joints if joints.count(joint) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} more than once; expected each joint once")
        return joints

    @field_validator("encoding")
    @classmethod
    def _colours(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            check_encoding(encoding)
        return encoding

    @field_validator("scale")
    @classmethod
    def _tells_values_apart(cls, scale: Numbers) -> Numbers:
        if not np.all(scale):
            raise ValueError("scaled by 0 all values are the same; expected other numbers")
        return scale

    @model_validator(mode="after")
    def _options_fit(self) -> InputMapping:
        if "joints" in self.converter.options and not self.joints:
            raise ValueError(f"{self.type} needs `joints`, the names whose values are used")
        unused = (self.model_fields_set & _OPTIONS) - self.converter.options
        if unused:
            raise ValueError(f"{self.type} does not use {', '.join(sorted(unused))}")
        _ = self.width  # refuses fields that are none
        if self.interpolation == "linear" and self.converter.is_image:
            raise ValueError("images cannot be interpolated; expected `interpolation: hold`")
        if self.coordinates and (self.converter.is_image or self._tells_coordinates):
            raise ValueError(f"{self.type} does not use coordinates: they are known")
        try:
            read_coordinates(self.coordinates)
        except InputError as error:
            raise ValueError(str(error)) from error
        quaternion = self._quaternion()
        if quaternion.any():
            self._check_quaternion("scale", 1.0, quaternion)
            self._check_quaternion("offset", 0.0, quaternion)
        return self

    def _quaternion(self) -> NDArray[np.bool_]:
        """Which values of a message, or of each pose of it, are coordinates of a quaternion."""
        if self._whole_poses:
            return np.arange(POSE_DIM) >= 3
        places = paths(self.type, self.fields) if self.type in FIELDS else ()
        return np.array(["orientation" in place for place in places], dtype=np.bool_)

    def _check_quaternion(self, name: str, neutral: float, where: NDArray[np.bool_]) -> None:
        """Scaled or shifted, a quaternion would be no rotation any more."""
        given = np.atleast_1d(getattr(self, name))
        whole = given.size % where.size == 0
        if name in self.model_fields_set and not (
            whole and np.all(given.reshape(-1, where.size)[:, where] == neutral)
        ):
            numbers = np.where(where, f"{neutral:g}", "*").tolist()
            raise ValueError(
                f"{name} {given.tolist()} would change the quaternion; expected numbers like "
                f"[{', '.join(numbers)}]"
            )

    @property
    def _whole_poses(self) -> bool:
        """True where each pose is a position and a quaternion, with w at either end."""
        return len(POSE_AXES[self.axes]) == POSE_DIM

    @property
    def converter(self) -> Converter:
        return CONVERTERS[self.type]

    @property
    def width(self) -> int | None:
        """Number of values of each message; None where only the messages tell, and for images."""
        return self.size or self.converter.width(self.options)

    @property
    def message(self) -> Any:
        """Class of the messages.

        Raises:
            InputError: when its package is not installed.
        """
        return message_class(self.type)

    def qos(self, *, lockstep: bool) -> QoSProfile:
        """Quality of service of the subscription.

        Of images only the newest waits for its turn, so that a camera that is faster than its
        decoding is seen late by one image and not by a queue of them; except in lockstep, where
        every one counts and nothing is late.
        """
        return QoSProfile(
            depth=1 if self.converter.is_image and not lockstep else _QUEUE,
            reliability=(
                ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT
            ),
        )

    def read(
        self, message: Any, receive_ns: int, shape: tuple[int, ...]
    ) -> tuple[int, NDArray[Any]]:
        """Time of the measurement in nanoseconds, and values.

        The time is the message's stamp, or without one the time of receipt, less `latency_s`.

        Args:
            shape: of the policy's input; images take it, other values are flat.
        Raises:
            InputError: when the message is not usable.
        """
        self.check_frame(message)
        values = self.scaled(self.converter.read(message, {**self.options, "shape": shape}))
        return self.time_ns(message, receive_ns), values

    def time_ns(self, message: Any, receive_ns: int) -> int:
        """Time of the measurement of a message in nanoseconds."""
        header = getattr(message, "header", None)
        stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
        return (stamp_ns or receive_ns) - round(1e9 * self.latency_s)

    def check_frame(self, message: Any) -> None:
        """Refuse a message in another frame than `frame_id`.

        Raises:
            InputError: with both.
        """
        if self.frame_id is not None and message.header.frame_id != self.frame_id:
            raise InputError(
                f"the message is in frame '{message.header.frame_id}', expected '{self.frame_id}', "
                "the frame_id of the inputs file"
            )

    def parts(self, message: Any) -> list[str]:
        """The joints of this input that a message names; of other types one nameless part."""
        return [j for j in self.joints if j in message.name] if self.joints else [""]

    @property
    def _tells_coordinates(self) -> bool:
        """True where the type of the messages says what the values are."""
        return "axes" in self.converter.options or self.type in FIELDS

    def coordinates_of(self, shape: tuple[int, ...]) -> Coordinates:
        """What the flat values of an input, or a part of one, of this shape are.

        Raises:
            InputError: when `coordinates` name values that it has not.
        """
        if "axes" in self.converter.options:
            return poses(math.prod(shape) // POSE_DIM) if self._whole_poses else NUMBERS
        if self.type in FIELDS:
            return coordinates_of_fields(self.type, self.fields)
        coordinates = read_coordinates(self.coordinates)
        coordinates.check(math.prod(shape))
        return coordinates

    @property
    def options(self) -> dict[str, Any]:
        """What the converter asks for."""
        options = {name: getattr(self, name) for name in self.converter.options}
        return {**options, "type": self.type}

    def scaled(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (n,) times `scale` plus `offset`.

        Raises:
            InputError: when there are not as many as numbers in these.
        """
        if not self.model_fields_set & {"scale", "offset"}:
            return values
        scale, offset = np.asarray(self.scale), np.asarray(self.offset)
        for name, numbers in (("scale", scale), ("offset", offset)):
            if numbers.ndim and numbers.shape != values.shape:
                raise InputError(
                    f"the message has {values.size} values, expected {numbers.size}, "
                    f"as many as {name} has"
                )
        return values * scale + offset
