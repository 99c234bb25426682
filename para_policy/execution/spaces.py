"""Action spaces: what coordinates mean, as far as mixing two actions needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from para_policy.errors import InputError
from para_policy.execution.chunk import ActionChunk

Array = NDArray[np.float64]
POSE_DIM = 7
"""Coordinates of a pose: x, y, z and the quaternion x, y, z, w."""
_SHORTEST = 0.1
"""A predicted quaternion that is shorter says nothing about a direction."""


class ActionSpace(Protocol):
    """Rules by which actions (A,) of one kind are cleaned, mixed and compared."""

    def prepare(self, chunk: ActionChunk) -> ActionChunk:
        """The same chunk in a form in which neighbouring actions may be mixed.

        Raises:
            InputError: when the actions are none of this kind.
        """
        ...

    def mix(self, a: Array, b: Array, weight: float) -> Array:
        """The action on the way from `a` (weight 0) to `b` (weight 1)."""
        ...

    def align(self, action: Array, reference: Array) -> Array:
        """The representation of `action` whose coordinates are closest to those of `reference`."""
        ...


class VectorSpace:
    """Joint positions, velocities: every coordinate by itself."""

    def prepare(self, chunk: ActionChunk) -> ActionChunk:
        return chunk

    def mix(self, a: Array, b: Array, weight: float) -> Array:
        return (1.0 - weight) * a + weight * b

    def align(self, action: Array, reference: Array) -> Array:
        return action


class PoseSpace:
    """Poses: positions are mixed linearly, rotations by slerp along the shorter way.

    A quaternion and its negative are the same rotation. Signs are chosen such that neighbours lie
    on the same side, so that differences of coordinates, which the guards look at, mean motion:
    a turn by a small angle changes the quaternion by half of it.
    """

    def prepare(self, chunk: ActionChunk) -> ActionChunk:
        """Quaternions of length 1, each on the side of the one before.

        Raises:
            InputError: when a quaternion is (nearly) zero.
        """
        actions = chunk.actions.copy()
        lengths = np.linalg.norm(actions[:, 3:], axis=1)
        if lengths.min() < _SHORTEST:
            row = int(lengths.argmin())
            raise InputError(
                f"action {row} has the quaternion {actions[row, 3:].tolist()} of length "
                f"{lengths[row]:.3g}, expected about 1; are the actions x y z qx qy qz qw?"
            )
        actions[:, 3:] /= lengths[:, None]
        for before, after in pairwise(actions):
            after[:] = self.align(after, before)
        return replace(chunk, actions=actions)

    def mix(self, a: Array, b: Array, weight: float) -> Array:
        position = (1.0 - weight) * a[:3] + weight * b[:3]
        between = Slerp([0.0, 1.0], Rotation.from_quat(np.stack([a[3:], b[3:]])))
        quaternion = between(weight).as_quat()
        return self.align(np.concatenate([position, quaternion]), a)

    def align(self, action: Array, reference: Array) -> Array:
        if action[3:] @ reference[3:] >= 0:
            return action
        return np.concatenate([action[:3], -action[3:]])


class PartedSpace:
    """Actions of several parts, each in a space of its own.

    Args:
        parts: places of each part, one after the other, and its space.
    """

    def __init__(self, parts: Sequence[tuple[slice, ActionSpace]]) -> None:
        self._parts = list(parts)

    def prepare(self, chunk: ActionChunk) -> ActionChunk:
        """Each part as its space has it.

        Raises:
            InputError: when the actions of a part are none of its kind.
        """
        prepared = [
            space.prepare(replace(chunk, actions=chunk.actions[:, places])).actions
            for places, space in self._parts
        ]
        return replace(chunk, actions=np.hstack(prepared))

    def mix(self, a: Array, b: Array, weight: float) -> Array:
        return np.concatenate([s.mix(a[at], b[at], weight) for at, s in self._parts])

    def align(self, action: Array, reference: Array) -> Array:
        return np.concatenate([s.align(action[at], reference[at]) for at, s in self._parts])
