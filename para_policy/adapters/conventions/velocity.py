"""The velocity function of one call of a policy, made to serve any rows of its batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from para_policy.adapters.conventions.closures import captured, recaptured


@dataclass(frozen=True, eq=False)
class Velocity:
    """A function that has captured the encoded observations of a batch.

    Each use of it gets copies of what it captured. So it may write into them, and crop its cache:
    those of the call stay as they are, and uses do not see each other.

    Attributes:
        function: `function(x, t)`, for the whole batch and one step at a time.
        axes: captured values with an entry for each sample, and the axis it lies along: tensors, None,
            or caches of keys and values (axis 0 of every layer).
        counts: captured numbers of samples.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    axes: Mapping[str, int]
    counts: tuple[str, ...] = ()

    def __call__(self, x: Tensor, t: Tensor, which: Tensor) -> Tensor:
        """Velocities at states `x` (M, ...) and times `t` (M, ...) of samples `which` (M,)."""
        values = captured(self.function)
        for name, axis in self.axes.items():
            values[name] = _of_samples(values[name], axis, which)
        values |= dict.fromkeys(self.counts, len(which))
        found: Tensor = recaptured(self.function, values)(x, t)
        return found


def _of_samples(value: Any, axis: int, which: Tensor) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.index_select(axis, which)
    made = copy.copy(value)  # a cache of transformers, of any class
    made.layers = [copy.copy(layer) for layer in value.layers]
    for layer in made.layers:
        layer.keys, layer.values = _read_only(layer.keys, which), _read_only(layer.values, which)
    return made


def _read_only(value: Tensor, which: Tensor) -> Tensor:
    """As `index_select`. Caches are large and grow by new tensors, so one sample needs no copies."""
    if len(value) == 1:
        return value.expand(len(which), *value.shape[1:])
    return value.index_select(0, which)
