"""Kinds of coordinates: what numbers mean, as far as mixing and comparing them needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError
from para_policy.execution.rotations import (
    ROUNDING,
    Euler,
    Quaternion,
    Rotation6D,
    RotationVector,
)

Array = NDArray[np.float64]


class Kind(Protocol):
    """Rules for the coordinates (k,) of one kind.

    Attributes:
        size: k; None: any, each coordinate by itself.
        is_flat: a mean number by number is right, or near enough to be made right afterwards.
        rounding: distance up to which two values may be the same one, written in two ways.
    """

    @property
    def size(self) -> int | None: ...

    @property
    def is_flat(self) -> bool: ...

    @property
    def rounding(self) -> float: ...

    def project(self, value: Array) -> Array:
        """The nearest value that means something.

        Raises:
            InputError: when there is none.
        """
        ...

    def align(self, value: Array, reference: Array) -> Array:
        """The same value, written with the numbers that are closest to those of `reference`."""
        ...

    def difference(self, a: Array, b: Array) -> Array:
        """The way (..., k) from `b` to `a`, both (..., k); ways of one kind can be added.

        That between rotations is a rotation vector in the fixed frame, with zeros behind it.
        """
        ...

    def sizes(self, difference: Array) -> Array:
        """A difference as it is limited: signed, or for rotations the angle in all k places."""
        ...

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        """The value on the shortest way from `a` (t = 0) to `b` (t = 1), both (k,)."""
        ...

    def mean(self, values: Array, weights: Array) -> Array:
        """The value (k,) amid `values` (n, k), with weights (n,) that add up to 1."""
        ...


class Number:
    """Positions, velocities, joints with a range: every number by itself."""

    size: int | None = None
    is_flat = True
    rounding = 0.0

    def project(self, value: Array) -> Array:
        return value

    def align(self, value: Array, reference: Array) -> Array:
        return value

    def difference(self, a: Array, b: Array) -> Array:
        return a - b

    def sizes(self, difference: Array) -> Array:
        return difference

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        return (1.0 - t) * a + t * b

    def mean(self, values: Array, weights: Array) -> Array:
        return weights @ values


class Unknown(Number):
    """Numbers of which nobody has said what they mean: compared, but never mixed."""

    is_flat = False

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        return (b if t == 1 else a).copy()

    def mean(self, values: Array, weights: Array) -> Array:
        return values[-1].copy()


@dataclass(frozen=True)
class Angle(Number):
    """Continuous joints and headings: one turn more or less is the same angle."""

    turn: float = 2 * math.pi
    is_flat = False
    rounding = ROUNDING

    def align(self, value: Array, reference: Array) -> Array:
        return value - self.turn * np.round((value - reference) / self.turn)

    def difference(self, a: Array, b: Array) -> Array:
        return self.align(a - b, np.zeros(1))

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        """On the turn of the nearer end, so that the numbers stay in the range of both."""
        if t in (0, 1):
            return np.array(b if t else a)
        return self.align(a + t * self.difference(b, a), a if t < 0.5 else b)

    def mean(self, values: Array, weights: Array) -> Array:
        heaviest = values[weights.argmax()]
        return heaviest + weights @ self.difference(values, heaviest)


KINDS: dict[str, Kind] = {
    "number": Number(),
    "angle": Angle(),
    "angle_degrees": Angle(360.0),
    "rotation_vector": RotationVector(),
    "quaternion": Quaternion(),
    "rotation_6d": Rotation6D(),
}
"""By name; beside these `euler_ORDER` and `euler_ORDER_degrees`, see `kind_named`."""
_ORDERS = [a + b + c for a in "xyz" for b in "xyz" for c in "xyz" if a != b != c]


def kind_named(name: str) -> Kind:
    """The kind that the user calls `name`.

    Raises:
        InputError: when there is none.
    """
    if name in KINDS:
        return KINDS[name]
    word, _, rest = name.partition("_")
    order, _, unit = rest.partition("_")
    known = order.lower() in _ORDERS and order in (order.lower(), order.upper())
    if word == "euler" and known and unit in ("", "degrees"):
        return Euler(order, 180 / math.pi if unit else 1.0)
    raise InputError(
        f"'{name}' is no kind of coordinates; expected {', '.join(KINDS)}, or euler_xyz (fixed "
        "axes), euler_XYZ (axes that turn along) or another order, with _degrees where they are"
    )
