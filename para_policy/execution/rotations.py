"""Rotations in the ways in which coordinates write them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from para_policy.errors import InputError

Array = NDArray[np.float64]
ROUNDING = 1e-12
"""Distance, radians, to which the same rotation is computed from two representations."""
_SHORTEST = 0.1
"""A predicted direction that is shorter says nothing."""
_LARGEST = 1e6
"""Larger numbers are no rotation; computed with, they overflow."""
_TINY = 1e-300
_MOST_STEPS = 100
_PRODUCT = np.array(
    [
        [[0, 0, 0, 1], [0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0]],
        [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]],
        [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],
        [[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]],
    ],
    dtype=np.float64,
)
"""Product of quaternions x y z w: each of its numbers, by those of the first and the second factor."""


def _turned(first: Array, second: Array) -> Array:
    """Quaternions (..., 4) of turning by `second`, then by `first`; for a few faster than by scipy."""
    product: Array = np.einsum("ijk,...j,...k->...i", _PRODUCT, first, second)
    return product


def _inverse(quaternion: Array) -> Array:
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def _from_vector(vector: Array) -> Array:
    """Quaternions (..., 4) of rotation vectors (..., 3)."""
    half = np.sqrt((vector * vector).sum(axis=-1, keepdims=True)) / 2
    return np.concatenate([vector * (np.sinc(half / math.pi) / 2), np.cos(half)], axis=-1)


def _to_vector(quaternion: Array) -> Array:
    """Rotation vectors (..., 3), not longer than pi, of quaternions (..., 4)."""
    axis, real = quaternion[..., :3], quaternion[..., 3:]
    length = np.sqrt((axis * axis).sum(axis=-1, keepdims=True))
    angle = 2 * np.arctan2(length, np.abs(real))
    return axis * np.copysign(angle / np.maximum(length, _TINY), real)


class Rotations:
    """Base of all ways to write a rotation; they differ in `read`, `write` and `align`.

    Attributes:
        unit: of angles, in radians^-1.
    """

    size: int | None = 3
    is_flat = False
    rounding = ROUNDING
    unit: float = 1.0

    def read(self, value: Array) -> Array:
        """Quaternions x y z w (..., 4) from (..., k)."""
        raise NotImplementedError

    def write(self, quaternion: Array) -> Array:
        """The inverse, of one."""
        raise NotImplementedError

    def project(self, value: Array) -> Array:
        """The nearest value that is a rotation; refuses numbers that mean none."""
        if np.abs(value).max() > _LARGEST:
            raise InputError(
                f"the rotation {value.tolist()}, expected numbers up to {_LARGEST:g}; are these the "
                "coordinates of a rotation?"
            )
        return value

    def align(self, value: Array, reference: Array) -> Array:
        return value

    def difference(self, a: Array, b: Array) -> Array:
        way = np.zeros(np.broadcast_shapes(a.shape, b.shape))
        way[..., :3] = _to_vector(_turned(self.read(a), _inverse(self.read(b)))) * self.unit
        return way

    def sizes(self, difference: Array) -> Array:
        angle = np.linalg.norm(difference, axis=-1, keepdims=True)
        return np.broadcast_to(angle, difference.shape)

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        if t in (0, 1):
            return np.array(b if t else a)
        start = self.read(a)
        way = _to_vector(_turned(self.read(b), _inverse(start)))
        between = self.write(_turned(_from_vector(t * way), start))
        return self.align(between, a if t < 0.5 else b)

    def mean(self, values: Array, weights: Array) -> Array:
        """The rotation from which all others are reached by ways that cancel (Karcher's mean)."""
        if len(values) == 2:
            return self.interpolate(values[0], values[1], weights[1])
        heaviest = values[weights.argmax()]
        rotations, middle = self.read(values), self.read(heaviest)
        for _ in range(_MOST_STEPS):
            step = weights @ _to_vector(_turned(rotations, _inverse(middle)))
            middle = _turned(_from_vector(step), middle)
            if np.linalg.norm(step) < ROUNDING:
                break
        return self.align(self.write(middle), heaviest)


class RotationVector(Rotations):
    """Axis times angle, radians. Written with at most one turn."""

    def read(self, value: Array) -> Array:
        return _from_vector(value)

    def write(self, quaternion: Array) -> Array:
        return _to_vector(quaternion)

    def align(self, value: Array, reference: Array) -> Array:
        angle = float(np.linalg.norm(value))
        if angle < ROUNDING:
            return value
        turn = 2 * math.pi
        axis = value / angle
        short = angle - turn * round(angle / turn)
        other = short - math.copysign(turn, short)
        wanted = float(axis @ reference)
        best = short if abs(short - wanted) <= abs(other - wanted) else other
        return value if math.isclose(best, angle) else axis * best


@dataclass(frozen=True)
class Euler(Rotations):
    """Three angles about the axes of `order`, as scipy names it: `xyz` about fixed axes, `XYZ` about
    those that turn along.

    Attributes:
        unit: 1 for radians, 180 / pi for degrees.
    """

    order: str
    unit: float = 1.0

    def read(self, value: Array) -> Array:
        return np.asarray(Rotation.from_euler(self.order, value / self.unit).as_quat())

    def write(self, quaternion: Array) -> Array:
        rotation = Rotation.from_quat(quaternion)
        return np.asarray(rotation.as_euler(cast(Any, self.order))) * self.unit

    def align(self, value: Array, reference: Array) -> Array:
        """Of the two triples that mean one rotation, each angle on the nearest turn."""
        first, middle, last = value
        turn = 2 * math.pi * self.unit
        half = turn / 2
        mirrored = -middle if self.order[0] == self.order[2] else half - middle
        twins = np.array([value, [first + half, mirrored, last + half]])
        twins = twins - turn * np.round((twins - reference) / turn)
        nearest: Array = twins[np.linalg.norm(twins - reference, axis=1).argmin()]
        return nearest


class Quaternion(Rotations):
    """Quaternion, in any order of its four numbers: mixing and angles do not depend on it.

    It and its negative are the same rotation.
    """

    size = 4

    def read(self, value: Array) -> Array:
        return value / np.sqrt((value * value).sum(axis=-1, keepdims=True))

    def write(self, quaternion: Array) -> Array:
        return self.read(quaternion)

    def project(self, value: Array) -> Array:
        length = float(np.linalg.norm(super().project(value)))
        if length < _SHORTEST:
            raise InputError(
                f"the quaternion {value.tolist()} of length {length:.3g}, expected about 1; are "
                "these the coordinates of a quaternion?"
            )
        return value / length

    def align(self, value: Array, reference: Array) -> Array:
        return value if value @ reference >= 0 else -value


class Rotation6D(Rotations):
    """Two columns, or two rows, of a rotation matrix, one after the other (Zhou et al., 2019)."""

    size = 6
    is_flat = True

    def read(self, value: Array) -> Array:
        first, second = value[..., :3], value[..., 3:]
        first = first / np.linalg.norm(first, axis=-1, keepdims=True)
        second = second - (first * second).sum(axis=-1, keepdims=True) * first
        second = second / np.linalg.norm(second, axis=-1, keepdims=True)
        columns = [first, second, np.cross(first, second)]
        return np.asarray(Rotation.from_matrix(np.stack(columns, axis=-1)).as_quat())

    def write(self, quaternion: Array) -> Array:
        matrix = np.asarray(Rotation.from_quat(quaternion).as_matrix())
        return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)

    def project(self, value: Array) -> Array:
        first = float(np.linalg.norm(super().project(value)[:3]))
        across = float(np.linalg.norm(np.cross(value[:3], value[3:]))) / max(first, _SHORTEST)
        if min(first, across) < _SHORTEST:
            raise InputError(
                f"the 6-D rotation {value.tolist()}, whose two vectors do not tell two directions; "
                "are these the coordinates of a rotation?"
            )
        return self.write(self.read(value))
