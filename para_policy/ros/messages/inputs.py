"""Mapping of topics to inputs of the policy: the YAML file behind `inputs_file`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy

from para_policy.checkpoints.files import summarise
from para_policy.errors import InputError
from para_policy.execution.coordinates import NUMBERS, Coordinates, poses, read_coordinates
from para_policy.ros.messages.conversions import CONVERTERS, POSE_AXES, Converter, stamp_to_ns
from para_policy.ros.messages.rigid_transform import RigidTransform

Numbers = FiniteFloat | tuple[FiniteFloat, ...]
"""One number for all values of an input, or one for each."""
Crop = tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt]
"""Top, left, height and width, pixels."""
_QUEUE = 10
_IMAGE_TYPES = [name for name, converter in CONVERTERS.items() if converter.is_image]
_OPTIONS = frozenset[str]().union(*(converter.options for converter in CONVERTERS.values()))


class InputMapping(BaseModel):
    """One input of the policy.

    Attributes:
        topic: name of the topic, relative to the node's namespace; launch files can remap it.
        type: message type as `ros2 topic info` prints it.
        joints: (JointState) joints whose positions make up the input, in this order.
        axes: (PoseStamped, PoseArray) coordinates of each pose: "xy", "xyz", or "pose" with the
            quaternion x, y, z, w after the position.
        crop: (images) the part that is used: top, left, height, width in pixels.
        resize: (images) true where what is left is scaled to the policy's size; otherwise an image of
            another size is refused.
        frame_id: what the header must say; a message in another frame is refused.
        transform: (PoseStamped, PoseArray) moves the poses into the frame of training.
        scale, offset: (not images) a value v, after the transform, becomes v * scale + offset, such
            as degrees for radians; where axes are "pose" the quaternion must be left as it is.
        reliable: quality of service asked for; false also accepts best-effort publishers, and is
            the default for images, as cameras often publish so.
        max_age_s: when the input counts as stale; None for parameter `max_observation_age_s`.
        latency_s: from the measurement to the time in the stamp (of receipt, without a stamp), which
            is corrected by it.
        interpolation: (not images) value at a time: "hold" takes the nearest one, "linear"
            interpolates between the two around it.
        coordinates: (not images, not poses) what the values are, after scale and offset, as
            `read_coordinates` reads it; those that are not named are not interpolated.
        max_unchanged_s: values that stay exactly the same for longer, by their stamps, count as
            stuck; None: never.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(min_length=1)
    type: str
    joints: tuple[str, ...] = ()
    axes: Literal["xy", "xyz", "pose"] = "xy"
    crop: Crop | None = None
    resize: bool = False
    frame_id: str | None = Field(default=None, min_length=1)
    transform: RigidTransform | None = None
    scale: Numbers = 1.0
    offset: Numbers = 0.0
    reliable: bool = Field(default_factory=lambda data: data.get("type") not in _IMAGE_TYPES)
    max_age_s: float | None = Field(default=None, ge=1e-3, le=3600.0)
    latency_s: float = Field(default=0.0, ge=0.0, le=10.0)
    interpolation: Literal["hold", "linear"] = "hold"
    coordinates: tuple[str, ...] = ()
    max_unchanged_s: float | None = Field(default=None, ge=1e-3, le=3600.0)

    @field_validator("type")
    @classmethod
    def _supported(cls, name: str) -> str:
        if name not in CONVERTERS:
            raise ValueError(f"{name!r} is not supported; choose one of {', '.join(CONVERTERS)}")
        return name

    @field_validator("scale")
    @classmethod
    def _tells_values_apart(cls, scale: Numbers) -> Numbers:
        if not np.all(scale):
            raise ValueError("scaled by 0 all values are the same; expected other numbers")
        return scale

    @model_validator(mode="after")
    def _options_fit(self) -> InputMapping:
        if "joints" in self.converter.options and not self.joints:
            raise ValueError(f"{self.type} needs `joints`, the names whose positions are used")
        unused = (self.model_fields_set & _OPTIONS) - self.converter.options
        if unused:
            raise ValueError(f"{self.type} does not use {', '.join(sorted(unused))}")
        if self.interpolation == "linear" and self.converter.is_image:
            raise ValueError("images cannot be interpolated; expected `interpolation: hold`")
        if self.coordinates and (self.converter.is_image or "axes" in self.converter.options):
            raise ValueError(f"{self.type} does not use coordinates: they are known")
        try:
            read_coordinates(self.coordinates)
        except InputError as error:
            raise ValueError(str(error)) from error
        if self.axes == "pose":
            self._check_quaternion("scale", 1.0)
            self._check_quaternion("offset", 0.0)
        return self

    def _check_quaternion(self, name: str, neutral: float) -> None:
        """Scaled or shifted, a quaternion would be no rotation any more."""
        given = np.atleast_1d(getattr(self, name))
        whole = given.size % POSE_AXES["pose"] == 0
        if name in self.model_fields_set and not (
            whole and np.all(given.reshape(-1, POSE_AXES["pose"])[:, 3:] == neutral)
        ):
            raise ValueError(
                f"{name} {given.tolist()} would change the quaternion; with axes: pose expected "
                f"seven numbers for each pose, of which the last four are {neutral:g}"
            )

    @property
    def converter(self) -> Converter:
        return CONVERTERS[self.type]

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
        header = getattr(message, "header", None)
        if self.frame_id is not None and message.header.frame_id != self.frame_id:
            raise InputError(
                f"the message is in frame '{message.header.frame_id}', expected '{self.frame_id}', "
                "the frame_id of the inputs file"
            )
        options = {name: getattr(self, name) for name in self.converter.options}
        values = self._scaled(self.converter.read(message, {**options, "shape": shape}))
        stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
        return (stamp_ns or receive_ns) - round(1e9 * self.latency_s), values

    def parts(self, message: Any) -> list[str]:
        """The joints of this input that a message names; of other types one nameless part."""
        return [j for j in self.joints if j in message.name] if self.joints else [""]

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse a mapping that cannot feed an input of this shape.

        Raises:
            InputError: with what such an input needs.
        """
        if self.converter.is_image and (len(shape) != 3 or shape[0] != 3):
            raise InputError(f"{self.type}; images feed inputs of shape (3, height, width)")
        for name in ("scale", "offset"):
            numbers = getattr(self, name)
            if isinstance(numbers, tuple) and len(numbers) != math.prod(shape):
                raise InputError(
                    f"{len(numbers)} numbers in {name}; expected one number, or {math.prod(shape)}"
                )
        self.coordinates_of(shape)

    def coordinates_of(self, shape: tuple[int, ...]) -> Coordinates:
        """What the flat values of an input of this shape are.

        Raises:
            InputError: when `coordinates` name values that it has not.
        """
        if "axes" in self.converter.options:
            count = math.prod(shape) // POSE_AXES["pose"]
            return poses(count) if self.axes == "pose" else NUMBERS
        coordinates = read_coordinates(self.coordinates)
        coordinates.check(math.prod(shape))
        return coordinates

    def _scaled(self, values: NDArray[Any]) -> NDArray[Any]:
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


class _InputsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, InputMapping] = Field(min_length=1)


def read_inputs(path: str | Path) -> dict[str, InputMapping]:
    """Read a mapping, without a policy to check it against.

    Raises:
        InputError: when the file is missing or not valid.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        return _InputsFile.model_validate(content).inputs
    except OSError as error:
        raise InputError(f"cannot read inputs_file '{path}': {error.strerror}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"inputs_file '{path}' is not valid YAML: {reason}") from error
    except ValidationError as error:
        raise InputError(f"inputs_file '{path}': {summarise(error, 'file')}") from error


def load_inputs(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, InputMapping]:
    """Read the mapping and check that it feeds exactly the policy's inputs.

    Args:
        shapes: the inputs of the policy.
    Raises:
        InputError: when the file is missing or not valid, or its inputs are not the policy's.
    """
    mappings = read_inputs(path)
    if set(mappings) != set(shapes):
        raise InputError(
            f"inputs_file '{path}' maps {sorted(mappings)}; the policy needs {sorted(shapes)}"
        )
    for name, mapping in mappings.items():
        shape = tuple(shapes[name])
        try:
            mapping.check_shape(shape)
        except InputError as error:
            raise InputError(
                f"inputs_file '{path}' feeds {name!r} of shape {shape} with {error}"
            ) from error
    return mappings
