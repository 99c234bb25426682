"""Fields of messages with a fixed set of numbers: Twist, Wrench, Odometry, Imu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.execution.coordinates import Coordinates, Group
from para_policy.execution.kinds import Number
from para_policy.execution.rotations import Quaternion

Array = NDArray[np.float64]

_XYZ = ("x", "y", "z")
_QUATERNION = (*_XYZ, "w")
_TWIST = {"linear": ("linear", _XYZ), "angular": ("angular", _XYZ)}
_WRENCH = {"force": ("force", _XYZ), "torque": ("torque", _XYZ)}
_Groups = Mapping[str, tuple[str, tuple[str, ...]]]


def _within(path: str, groups: _Groups) -> _Groups:
    return {name: (f"{path}.{place}", axes) for name, (place, axes) in groups.items()}


FIELDS: Mapping[str, _Groups] = {
    "geometry_msgs/msg/Twist": _TWIST,
    "geometry_msgs/msg/TwistStamped": _within("twist", _TWIST),
    "geometry_msgs/msg/Wrench": _WRENCH,
    "geometry_msgs/msg/WrenchStamped": _within("wrench", _WRENCH),
    "nav_msgs/msg/Odometry": {
        "position": ("pose.pose.position", _XYZ),
        "orientation": ("pose.pose.orientation", _QUATERNION),
        **_within("twist.twist", _TWIST),
    },
    "sensor_msgs/msg/Imu": {
        "orientation": ("orientation", _QUATERNION),
        "angular_velocity": ("angular_velocity", _XYZ),
        "linear_acceleration": ("linear_acceleration", _XYZ),
    },
}
"""By type, the names for `fields` in the inputs file, in the order of the default: all of them. Each
stands for an attribute of the message and the coordinates of it."""


def paths(kind: str, fields: Sequence[str]) -> tuple[str, ...]:
    """Attributes of a message of type `kind` that make up its values, in order.

    Args:
        fields: keys of `FIELDS[kind]`, or one coordinate of them: "linear.x"; empty: all.
    Raises:
        InputError: when a field is unknown or there twice.

    >>> paths("geometry_msgs/msg/TwistStamped", ["linear.x", "angular.z"])
    ('twist.linear.x', 'twist.angular.z')
    """
    return _paths(kind, tuple(fields))


@lru_cache
def _paths(kind: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    """As `paths`; messages ask for the same again and again."""
    groups = FIELDS[kind]
    found: list[str] = []
    for field in fields or groups:
        name, _, axis = field.partition(".")
        place, axes = groups.get(name, ("", ()))
        if not axes or (axis and axis not in axes):
            raise InputError(
                f"{kind} has no field {field!r}; expected {', '.join(groups)}, or one coordinate "
                f"such as {next(iter(groups))}.x"
            )
        found += [f"{place}.{coordinate}" for coordinate in ((axis,) if axis else axes)]
    twice = sorted({path for path in found if found.count(path) > 1})
    if twice:
        raise InputError(f"fields have {', '.join(twice)} more than once; expected each once")
    return tuple(found)


def coordinates_of_fields(kind: str, fields: Sequence[str]) -> Coordinates:
    """What the values are: numbers and a quaternion; a part of a quaternion is unknown.

    Args:
        kind, fields: as for `paths`.
    """
    places = paths(kind, fields)
    turn = tuple(i for i, place in enumerate(places) if "orientation" in place)
    numbers = tuple(i for i in range(len(places)) if i not in turn)
    groups = [Group("numbers", Number(), numbers)] if numbers else []
    if len(turn) == len(_QUATERNION):
        groups.append(Group("orientation", Quaternion(), turn))
    return Coordinates(tuple(groups))


def read_fields(message: Any, options: Mapping[str, Any]) -> Array:
    """The values of `fields` (n,), flat.

    Raises:
        InputError: when an Imu says that it does not measure one of them.
    """
    places = paths(options["type"], options["fields"])
    if options["type"] == "sensor_msgs/msg/Imu":
        for name in sorted({place.partition(".")[0] for place in places}):
            if getattr(message, f"{name}_covariance")[0] == -1:
                raise InputError(
                    f"the Imu does not measure {name}: its covariance begins with -1; leave it out "
                    "of `fields` in the inputs file"
                )
    return np.array([attrgetter(place)(message) for place in places], dtype=np.float64)
