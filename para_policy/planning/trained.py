"""Scale on which the policy knows an input: values far beyond it are of another unit, joint or frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FAR = 5.0
"""Normalised units. Those of the demonstrations lie between -1 and 1, or have the standard deviation 1;
degrees in the place of radians are 57 times as large."""
_ADVICE = (
    "are units, joints and frame those of the demonstrations? `scale`, `offset`, `joints` and "
    "`transform` of the inputs file change them"
)


@dataclass(frozen=True, eq=False)
class TrainedScale:
    """Normalisation of the flat values of an input: value * scale + offset.

    Attributes:
        scale, offset: (D,).
    """

    scale: NDArray[np.floating[Any]]
    offset: NDArray[np.floating[Any]]

    def part(self, first: int, width: int) -> TrainedScale:
        """That of `width` values from place `first` on."""
        places = slice(first, first + width)
        return TrainedScale(self.scale[places], self.offset[places])

    def far(self, values: NDArray[Any]) -> str:
        """What is to be said of values of any shape, D in all, that the policy cannot know; '': all is
        well."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        plain = (self.scale == 1) & (self.offset == 0)  # not normalised: the policy does not tell
        sizes = np.where(plain, 0.0, np.abs(flat * self.scale + self.offset))
        places = np.flatnonzero(sizes > _FAR)
        if not len(places):
            return ""
        worst = int(sizes.argmax())
        low, high = ((end - self.offset[worst]) / self.scale[worst] for end in (-1.0, 1.0))
        others = f", and {len(places) - 1} more" if len(places) > 1 else ""
        return (
            f"value {worst} is {flat[worst]:.4g}, where the policy knows about {low:.4g} to "
            f"{high:.4g}{others}; {_ADVICE}"
        )
