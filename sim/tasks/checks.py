"""Checks of what simulated tasks are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike

from para_policy.errors import InputError
from sim.tasks.task import Array, Inputs


def check_seed(seed: int) -> None:
    """Raise InputError unless numpy's older generators, which draw start states, take the seed."""
    if not 0 <= seed < 2**32:
        raise InputError(f"start state seed {seed} is out of range: expected 0 <= seed < 2**32")


def finite_vector(value: ArrayLike, size: int, name: str) -> Array:
    """The value as (size,) float64; InputError if it is none, or not finite."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise InputError(f"{name} {value!r} is not usable: expected {size} finite numbers")
    return vector


def check_observable(
    inputs: Inputs, title: str, widths: Mapping[str, int], images: Collection[str]
) -> None:
    """Raise InputError unless a scene can observe every input.

    Args:
        title: of the task, for the message.
        widths: of the vectors that it has, by name.
        images: names of the images that it has, of any size.
    """
    for name, shape in inputs.items():
        image = name in images and len(shape) == 3 and shape[0] == 3
        if not image and tuple(shape) != (widths.get(name),):
            vectors = ", ".join(f"{known} ({width},)" for known, width in widths.items())
            raise InputError(
                f"{title} has no input {name!r} of shape {tuple(shape)}; it has {vectors}, and images "
                f"{' or '.join(images)} (3, height, width)"
            )
