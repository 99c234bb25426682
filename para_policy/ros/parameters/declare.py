"""Declaration of parameters, with the descriptions that `ros2 param describe` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

NO_NAMES = [""]
"""Default of a list of names: rclpy takes an empty list for a list of bytes."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a node.

    Attributes:
        limits: bound numbers, both ends included.
        live: true where it may change while the node is configured.
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    live: bool = False


def declare(node: Node, parameters: Sequence[Parameter]) -> None:
    for parameter in parameters:
        descriptor = ParameterDescriptor(description=parameter.description)
        if parameter.live:
            descriptor.additional_constraints = "May be changed at any time."
        if parameter.limits is not None:
            low, high = parameter.limits
            if isinstance(parameter.default, float):
                limits = FloatingPointRange(from_value=float(low), to_value=float(high))
                descriptor.floating_point_range = [limits]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        node.declare_parameter(parameter.name, parameter.default, descriptor)


def value(node: Node, name: str) -> Any:
    return node.get_parameter(name).value


def names(node: Node, name: str) -> list[str]:
    """A list of names without empty ones."""
    return [text for text in value(node, name) if text]
