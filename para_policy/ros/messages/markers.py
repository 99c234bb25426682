"""Markers of the way on which a chunk will take the robot, for RViz."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import ns_to_duration, ns_to_stamp

Array = NDArray[np.float64]

_NOW = np.array([1.0, 0.8, 0.1, 1.0])
_LATER = np.array([0.1, 0.2, 0.9, 1.0])
"""Red, green, blue, opacity: bright yellow to dark blue, which colour-blind eyes tell apart too."""
_LINE_M = 0.004
_SPHERE_M = 0.012


def chunk_markers(
    chunk: ActionChunk, axes: Sequence[int], scale: float, frame_id: str, namespace: str
) -> MarkerArray:
    """A line through the actions and a sphere at each, yellow for now to blue for later.

    Orientations among the actions are not drawn. The markers carry the chunk's stamp and vanish
    when it has run out, or with the next chunk, which takes their place.

    Args:
        axes: which coordinates of an action are x and y, or x, y and z.
        scale: metres per unit of an action.
        frame_id: frame of the actions.
        namespace: tells the markers of several nodes apart in one display.
    Raises:
        InputError: when an axis does not exist, or there are not two or three.
    """
    points = [Point(x=x, y=y, z=z) for x, y, z in (scale * _positions(chunk, axes)).tolist()]
    colors = [_color(part) for part in np.linspace(0.0, 1.0, len(points))]
    line = _marker(chunk, frame_id, namespace, Marker.LINE_STRIP, _LINE_M)
    # RViz complains about a line of one point; deleting takes away a longer chunk's, too.
    line.action = Marker.ADD if len(points) > 1 else Marker.DELETE
    spheres = _marker(chunk, frame_id, namespace, Marker.SPHERE_LIST, _SPHERE_M)
    for marker in (line, spheres):
        marker.points, marker.colors = points, colors
    return MarkerArray(markers=[line, spheres])


def check_axes(axes: Sequence[int], action_dim: int) -> None:
    """Refuse axes that actions of `action_dim` coordinates do not have.

    Raises:
        InputError: with the axes that there are.
    """
    if len(axes) not in (2, 3) or any(not 0 <= axis < action_dim for axis in axes):
        raise InputError(
            f"the axes of the markers are {list(axes)}; expected two or three numbers from 0 to "
            f"{action_dim - 1}: the coordinates of an action that are x y or x y z"
        )


def _positions(chunk: ActionChunk, axes: Sequence[int]) -> Array:
    """(Ta, 3); z is 0 where there are two axes."""
    check_axes(axes, chunk.action_dim)
    positions = np.zeros((len(chunk.actions), 3))
    positions[:, : len(axes)] = chunk.actions[:, list(axes)]
    return positions


def _color(part: float) -> ColorRGBA:
    """Between now (0) and the end of the chunk (1)."""
    r, g, b, a = ((1.0 - part) * _NOW + part * _LATER).tolist()
    return ColorRGBA(r=r, g=g, b=b, a=a)


def _marker(chunk: ActionChunk, frame_id: str, namespace: str, kind: int, size_m: float) -> Marker:
    """A marker without points; its type is its id, as there is one of each."""
    marker = Marker(ns=namespace, id=kind, type=kind)
    marker.header.frame_id = frame_id
    marker.header.stamp = ns_to_stamp(chunk.stamp_ns)
    marker.pose.orientation.w = 1.0
    marker.color = _color(0.0)  # for viewers that know no colours of single points
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    marker.lifetime = ns_to_duration(chunk.end_ns - chunk.stamp_ns)
    return marker
