"""Coordinates of actions and observations: which of them are plain numbers, angles, rotations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk
from para_policy.execution.kinds import Kind, Number, Unknown, kind_named
from para_policy.execution.rotations import Quaternion

Array = NDArray[np.float64]
_MOST = 10_000


@dataclass(frozen=True)
class Group:
    """Coordinates that belong together.

    Attributes:
        text: as the user wrote it.
        index: their places in the vector, in the order of the kind.
    """

    text: str
    kind: Kind
    index: tuple[int, ...]

    def __post_init__(self) -> None:
        size = self.kind.size
        if size is not None and len(self.index) != size:
            raise InputError(
                f"coordinates '{self.text}' are {len(self.index)}; this kind expects {size}"
            )


@dataclass(frozen=True)
class Coordinates:
    """Meaning of the coordinates of a vector (A,), and how such vectors are mixed and compared.

    Every group is mixed on its own manifold: angles on the circle, rotations along the shortest
    turn, whatever numbers they are written with.

    Attributes:
        rest: kind of the coordinates that are in no group.
    Raises:
        InputError: when a coordinate is in two groups.
    """

    groups: tuple[Group, ...] = ()
    rest: Kind = field(default_factory=Unknown)

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for group in self.groups:
            for place in group.index:
                if place in seen:
                    raise InputError(
                        f"coordinate {place} is in '{seen[place]}' and in '{group.text}'; "
                        "expected each coordinate once, counted from 0"
                    )
                seen[place] = group.text

    def check(self, size: int) -> None:
        """Refuse groups that a vector of `size` numbers does not have.

        Raises:
            InputError: with the group and the number.
        """
        for group in self.groups:
            if max(group.index) >= size:
                raise InputError(
                    f"coordinates '{group.text}' name coordinate {max(group.index)}; "
                    f"there are {size}, 0 to {size - 1}"
                )

    def untold(self, size: int | None) -> str:
        """The coordinates of which nobody has said what they mean, in words; empty: none."""
        if size is not None:
            return ", ".join(str(place) for place in np.flatnonzero(~self.told(size)))
        if not isinstance(self.rest, Unknown):
            return ""
        return "all but those named" if self.groups else "all"

    def told(self, size: int) -> NDArray[np.bool_]:
        """(A,) true where somebody has said what the coordinate means, so that it may be mixed."""
        told = np.full(size, not isinstance(self.rest, Unknown))
        for group in self.groups:
            told[list(group.index)] = True
        return told

    def or_numbers(self) -> Coordinates:
        """The same, with numbers for the unknown."""
        return replace(self, rest=Number()) if isinstance(self.rest, Unknown) else self

    def within(self, places: range) -> tuple[Group, ...]:
        """The same as groups of a longer vector, in which they stand at `places`."""
        whole = f"{places[0]}-{places[-1]} of an output"
        groups = [
            Group(whole, group.kind, tuple(places[i] for i in group.index)) for group in self.groups
        ]
        named = {i for group in self.groups for i in group.index}
        others = tuple(place for i, place in enumerate(places) if i not in named)
        return (*groups, Group(whole, self.rest, others)) if others else tuple(groups)

    def flat(self, size: int) -> NDArray[np.bool_]:
        """(A,) true where a mean number by number is right."""
        flat = np.full(size, self.rest.is_flat)
        for group in self.groups:
            flat[list(group.index)] = group.kind.is_flat
        return flat

    def canonical(self, value: Array) -> Array:
        """The nearest vector that means something: quaternions of length 1, orthonormal 6-D rotations.

        Raises:
            InputError: when there is none, such as for a quaternion of length 0.
        """
        canonical = np.array(value, dtype=np.float64)
        for group in self.groups:
            index = list(group.index)
            canonical[index] = group.kind.project(canonical[index])
        return canonical

    def align(self, value: Array, reference: Array) -> Array:
        """The same vector, written with the numbers that are closest to those of `reference`."""
        aligned = np.array(value)
        for group in self.groups:
            index = list(group.index)
            aligned[index] = group.kind.align(value[index], reference[index])
        return aligned

    def prepare(self, chunk: ActionChunk) -> ActionChunk:
        """The same chunk in a form in which neighbouring actions can be mixed and commanded.

        Raises:
            InputError: when it has not these coordinates.
        """
        self.check(chunk.action_dim)
        if not self.groups:
            return chunk
        actions = chunk.actions.copy()
        for row, action in enumerate(actions):
            try:
                actions[row] = self.canonical(action)
            except InputError as error:
                raise InputError(f"action {row} has {error}") from error
        for before, after in pairwise(actions):
            after[:] = self.align(after, before)
        return replace(chunk, actions=actions)

    def difference(self, a: Array, b: Array) -> Array:
        """The way (..., A) from `b` to `a`, both (..., A); ways from and to anywhere can be added.

        For a rotation it is a rotation vector in the first three places of its group.
        """
        way = np.asarray(self.rest.difference(a, b))
        for group in self.groups:
            index = list(group.index)
            way[..., index] = group.kind.difference(a[..., index], b[..., index])
        return way

    def sizes(self, difference: Array) -> Array:
        """Size (A,) of a difference in each coordinate: signed; for rotations the angle of the turn.

        It stands in all places of the group, in radians, or degrees for angles in degrees.
        """
        sizes = np.array(difference)
        for group in self.groups:
            index = list(group.index)
            sizes[index] = group.kind.sizes(difference[index])
        return sizes

    def interpolate(self, a: Array, b: Array, t: float) -> Array:
        """The vector on the way from `a` (t = 0) to `b` (t = 1); unknown ones stay until t = 1."""
        between = self.rest.interpolate(a, b, t)
        for group in self.groups:
            index = list(group.index)
            between[index] = group.kind.interpolate(a[index], b[index], t)
        return between

    def mean(self, values: ArrayLike, weights: ArrayLike) -> Array:
        """Weighted mean (A,) of vectors (n, A); unknown coordinates are those of the last vector."""
        given, parts = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        parts = parts / parts.sum()
        mean = self.rest.mean(given, parts)
        for group in self.groups:
            index = list(group.index)
            mean[index] = group.kind.mean(given[:, index], parts)
        return mean

    def same(self, a: Array, b: Array) -> bool:
        """Whether two arrays say exactly the same, in whatever numbers; of any shape without groups."""
        if np.array_equal(a, b):
            return True
        if a.shape != b.shape or not self.groups:
            return False
        a, b = a.ravel(), b.ravel()
        rounding = np.zeros(a.shape)
        for group in self.groups:
            rounding[list(group.index)] = group.kind.rounding
        return bool((np.abs(self.sizes(self.difference(a, b))) <= rounding).all())


UNKNOWN = Coordinates()
NUMBERS = Coordinates(rest=Number())
POSE_DIM = 7
"""Coordinates of a pose: x, y, z and the quaternion."""


def poses(count: int = 1) -> Coordinates:
    """The coordinates x y z qx qy qz qw of so many poses, one after the other."""
    groups = [
        Group(
            f"quaternion {first + 3}-{first + 6}", Quaternion(), tuple(range(first + 3, first + 7))
        )
        for first in range(0, POSE_DIM * count, POSE_DIM)
    ]
    return Coordinates(tuple(groups), Number())


def read_coordinates(entries: Sequence[str]) -> Coordinates:
    """Coordinates from texts such as "number 0-2", "rotation_vector 3-5" or "quaternion 4,5,6,3".

    Args:
        entries: a kind and the places, counted from 0, of each group. Coordinates that none of them
            names are unknown.
    Raises:
        InputError: when an entry cannot be read, has too many or too few places for its kind, or
            names a coordinate that another names, too.
    """
    return Coordinates(tuple(_group(entry) for entry in entries))


def _group(entry: str) -> Group:
    match = re.fullmatch(r"\s*(\w+)\s+(\d+(?:\s*-\s*\d+)?(?:\s*,\s*\d+(?:\s*-\s*\d+)?)*)\s*", entry)
    if match is None:
        raise InputError(
            f"coordinates '{entry}' cannot be read; expected a kind and places counted from 0, "
            "such as 'rotation_vector 3-5' or 'angle 0,5'"
        )
    index: list[int] = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        places = range(int(first), int(last or first) + 1)
        if not places or places[-1] >= _MOST:
            raise InputError(f"coordinates '{entry}': '{part.strip()}' is no range of places")
        index += places
    return Group(" ".join(entry.split()), kind_named(match[1]), tuple(index))
