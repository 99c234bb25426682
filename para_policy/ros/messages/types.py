"""Message types by name, and messages of them from bytes."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.serialization import deserialize_message

from para_policy.errors import DataError, InputError


def message_class(name: str) -> Any:
    """The class of a type such as "sensor_msgs/msg/Image".

    Raises:
        InputError: when its package is not installed.
    """
    package, _, kind = name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"message type {name!r} is not available; install and source the package {package!r}"
        ) from error


def decode(data: bytes, kind: Any, topic: str) -> Any:
    """A message from its bytes.

    Raises:
        DataError: when the bytes are no message of that type.
    """
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # what is raised differs between middlewares
        raise DataError(
            f"a message of {topic} is damaged: {len(data)} bytes are no {kind.__name__} ({error})"
        ) from error
