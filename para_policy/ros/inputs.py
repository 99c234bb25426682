"""Which topic feeds which input of the policy: the YAML file behind `inputs_file`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from para_policy.errors import InputError
from para_policy.formats.files import summarise
from para_policy.ros.conversions import CONVERTERS, Converter, stamp_to_ns

_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class InputMapping(BaseModel):
    """One input of the policy.

    Attributes:
        topic: name of the topic, relative to the node's namespace; launch files can remap it.
        type: message type as `ros2 topic info` prints it.
        joints: (JointState) joints whose positions make up the input, in this order.
        axes: (PoseStamped, PoseArray) coordinates of each pose: "xy", "xyz", or "pose" with the
            quaternion x, y, z, w after the position.
        reliable: quality of service asked for; false also accepts best-effort publishers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str = Field(min_length=1)
    type: str
    joints: tuple[str, ...] = ()
    axes: Literal["xy", "xyz", "pose"] = "xy"
    reliable: bool = True

    @field_validator("type")
    @classmethod
    def _supported(cls, name: str) -> str:
        if name in _IMAGE_TYPES:
            raise ValueError(f"{name} is not supported yet: this release takes state observations")
        if name not in CONVERTERS:
            raise ValueError(f"{name!r} is not supported; choose one of {', '.join(CONVERTERS)}")
        return name

    @model_validator(mode="after")
    def _options_fit(self) -> InputMapping:
        if "joints" in self.converter.options and not self.joints:
            raise ValueError(f"{self.type} needs `joints`, the names whose positions are used")
        unused = (self.model_fields_set & {"joints", "axes"}) - self.converter.options
        if unused:
            raise ValueError(f"{self.type} does not use {', '.join(sorted(unused))}")
        return self

    @property
    def converter(self) -> Converter:
        return CONVERTERS[self.type]

    def read(self, message: Any, receive_ns: int) -> tuple[int, NDArray[np.float64]]:
        """Stamp in nanoseconds and flat values; messages without a stamp get the time of receipt."""
        values = self.converter.read(message, {"joints": self.joints, "axes": self.axes})
        header = getattr(message, "header", None)
        stamp_ns = 0 if header is None else stamp_to_ns(header.stamp)
        return stamp_ns or receive_ns, values


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
    return mappings
