"""Which topic feeds which input of the policy: the YAML file behind `inputs_file`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy

from para_policy.errors import InputError
from para_policy.formats.files import summarise
from para_policy.ros.conversions import CONVERTERS, Converter, stamp_to_ns

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
        resize: (images) whether what is left is scaled to the policy's size; otherwise an image of
            another size is refused.
        reliable: quality of service asked for; false also accepts best-effort publishers, and is
            the default for images, as cameras often publish so.
        max_age_s: when the input counts as stale; None for parameter `max_observation_age_s`.
        latency_s: from the measurement to the time in the stamp (of receipt, without a stamp), which
            is corrected by it.
        interpolation: (not images) value at a time: "hold" takes the last one not after it, "linear"
            interpolates between the two around it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(min_length=1)
    type: str
    joints: tuple[str, ...] = ()
    axes: Literal["xy", "xyz", "pose"] = "xy"
    crop: Crop | None = None
    resize: bool = False
    reliable: bool = Field(default_factory=lambda data: data.get("type") not in _IMAGE_TYPES)
    max_age_s: float | None = Field(default=None, ge=1e-3, le=3600.0)
    latency_s: float = Field(default=0.0, ge=0.0, le=10.0)
    interpolation: Literal["hold", "linear"] = "hold"

    @field_validator("type")
    @classmethod
    def _supported(cls, name: str) -> str:
        if name not in CONVERTERS:
            raise ValueError(f"{name!r} is not supported; choose one of {', '.join(CONVERTERS)}")
        return name

    @model_validator(mode="after")
    def _options_fit(self) -> InputMapping:
        if "joints" in self.converter.options and not self.joints:
            raise ValueError(f"{self.type} needs `joints`, the names whose positions are used")
        unused = (self.model_fields_set & _OPTIONS) - self.converter.options
        if unused:
            raise ValueError(f"{self.type} does not use {', '.join(sorted(unused))}")
        if self.interpolation == "linear" and self.converter.is_image:
            raise ValueError("images cannot be interpolated; expected `interpolation: hold`")
        if self.interpolation == "linear" and self.axes == "pose":
            raise ValueError("a quaternion cannot be interpolated linearly; use axes: xyz")
        return self

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
        options = {name: getattr(self, name) for name in self.converter.options}
        values = self.converter.read(message, {**options, "shape": shape})
        header = getattr(message, "header", None)
        stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
        return (stamp_ns or receive_ns) - round(1e9 * self.latency_s), values


class _InputsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: dict[str, InputMapping] = Field(min_length=1)


def load_inputs(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, InputMapping]:
    """Read the mapping and check that it feeds exactly the policy's inputs.

    Args:
        shapes: the inputs of the policy.
    Raises:
        InputError: when the file is missing or not valid, or its inputs are not the policy's.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
        mappings = _InputsFile.model_validate(content).inputs
    except OSError as error:
        raise InputError(f"cannot read inputs_file '{path}': {error.strerror}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"inputs_file '{path}' is not valid YAML: {reason}") from error
    except ValidationError as error:
        raise InputError(f"inputs_file '{path}': {summarise(error, 'file')}") from error
    if set(mappings) != set(shapes):
        raise InputError(
            f"inputs_file '{path}' maps {sorted(mappings)}; the policy needs {sorted(shapes)}"
        )
    for name, mapping in mappings.items():
        shape = tuple(shapes[name])
        if mapping.converter.is_image and (len(shape) != 3 or shape[0] != 3):
            raise InputError(
                f"inputs_file '{path}' feeds {name!r} of shape {shape} with {mapping.type}; images "
                "feed inputs of shape (3, height, width)"
            )
    return mappings
