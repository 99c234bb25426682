"""What the coordinates of an action mean, as far as mixing two of them needs to know."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from para_policy.execution.chunk import ActionChunk

Array = NDArray[np.float64]


class ActionSpace(Protocol):
    """How actions (A,) of one kind are cleaned, mixed and compared."""

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
