"""Declaration of parameters, with the descriptions that `ros2 param describe` shows."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import rclpy
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node

from para_policy.errors import InputError

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


def unknown_names(given: Collection[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names in `given` that no node knows, each with advice. ROS ignores them without a word."""
    for name in given:
        if name not in known and not name.startswith("qos_overrides."):
            close = difflib.get_close_matches(name, known, n=1)
            yield name, f"did you mean {close[0]}?" if close else "remove it"


def refuse_unknown(node: Node, others: Sequence[Parameter] = ()) -> None:
    """Refuse names that are given to the node, in a file or an argument, and are no parameters.

    A limit whose name is misspelt would not limit anything.

    Args:
        others: of other nodes, which a section for all nodes may name as well.
    Raises:
        InputError: with the name that was probably meant.
    """
    known = {*node._parameters, *(parameter.name for parameter in others)}
    wrong = [
        f"{name} ({advice})" for name, advice in unknown_names(node._parameter_overrides, known)
    ]
    if wrong:
        raise InputError(f"{node.get_name()} has no parameter {', '.join(wrong)}")


def refuse_changes(node: Node, parameters: Sequence[Parameter]) -> None:
    """Keep those that are not `live` as they are from now on: a change would have no effect."""
    fixed = {parameter.name for parameter in parameters if not parameter.live}

    def refuse(changed: list[rclpy.Parameter]) -> SetParametersResult:
        wrong = [parameter.name for parameter in changed if parameter.name in fixed]
        reason = f"{', '.join(wrong)} is read at start only; restart the node" if wrong else ""
        return SetParametersResult(successful=not wrong, reason=reason)

    node.add_on_set_parameters_callback(refuse)


def value(node: Node, name: str) -> Any:
    return node.get_parameter(name).value


def names(node: Node, name: str) -> list[str]:
    """A list of names without empty ones."""
    return [text for text in value(node, name) if text]
