"""Checkpoint as every format is read into it, and the match of its weights to our networks."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from para_policy.checkpoints.files import sha256, weights_sha256
from para_policy.errors import CheckpointError, InputError, shown
from para_policy.policies.build import TASK
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer

_SHOWN = 5
_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod)[.])+")

_T = TypeVar("_T")


@dataclass(frozen=True)
class KeyReport:
    """Which weights of a file were used.

    Attributes:
        matched: names in the file of the weights that our network takes.
        missing: names of our network's weights that the file does not have.
        unexpected: names in the file that our network does not have.
        ignored: names in the file that are left out on purpose, and why.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """One line of numbers, and one for each kind of weight that was left out."""
        lines = [
            f"{len(self.matched)} weights matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.ignored)} left out"
        ]
        for why in dict.fromkeys(self.ignored.values()):
            names = [name for name, reason in self.ignored.items() if reason == why]
            lines.append(f"left out: {_some(names)}: {why}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Checkpoint:
    """A policy as it lies in a file.

    Attributes:
        state: weights of the network, and those of the vision encoder with the prefix "vision.".
        normalizers: one for each input, and one for "action".
        source: the file that the weights came from.
        lacks: what must be given before the policy can act, and how; None for nothing.

    Raises:
        CheckpointError: for statistics that no data has, see `LinearNormalizer.check`.
    """

    config: PolicyConfig
    state: dict[str, Tensor]
    normalizers: dict[str, LinearNormalizer]
    report: KeyReport
    source: Path
    lacks: str | None = None

    def __post_init__(self) -> None:
        for name, normalizer in self.normalizers.items():
            try:
                normalizer.check()
            except InputError as error:
                raise CheckpointError(
                    f"'{self.source}', statistics of '{name}': {error}"
                ) from error

    def check_complete(self) -> None:
        """Raise CheckpointError if it `lacks` something."""
        if self.lacks is not None:
            raise CheckpointError(f"'{self.source.parent}' {self.lacks}")

    @cached_property
    def sha256(self) -> str:
        """Of `source`; what was trained for the weights is bound to it."""
        return sha256(self.source)

    @cached_property
    def weights_sha256(self) -> str:
        """Of the networks' weights in `state`; what was measured with them is bound to it."""
        return weights_sha256({name: value for name, value in self.state.items() if name != TASK})

    def measured(self, bound_to: str) -> bool:
        """Whether a calibration that is bound to these weights, or in earlier releases to this file,
        is one of this checkpoint."""
        return bound_to in (self.weights_sha256, self.sha256)


def match(
    source: Path,
    found: Mapping[str, Tensor],
    expected: Mapping[str, torch.Size],
    rename: Callable[[str], str] = lambda name: name,
    ignore: Callable[[str], str | None] = lambda name: None,
) -> tuple[dict[str, Tensor], KeyReport]:
    """Give the weights of a file the names of our network.

    Args:
        source: the file, for messages.
        expected: shapes of our network's weights, by name.
        rename: a name in the file to ours.
        ignore: why a name in the file is left out; None if it is not.

    Raises:
        CheckpointError: if weights are missing, unexpected, of another shape, or not finite.
    """
    ignored = {name: why for name in found if (why := ignore(name)) is not None}
    ours = {name: rename(name) for name in found if name not in ignored}
    state = {ours[name]: found[name] for name in ours}
    if len(state) < len(ours):
        raise CheckpointError(f"'{source}' holds two weights for the same place in the network")
    missing = tuple(name for name in expected if name not in state)
    unexpected = tuple(name for name, mine in ours.items() if mine not in expected)
    if missing or unexpected:
        parts = [f"lacks {_some(missing)}"] * bool(missing)
        parts += [f"has unknown {_some(unexpected)}"] * bool(unexpected)
        raise CheckpointError(
            f"'{source}' {' and '.join(parts)}: it does not hold the policy that its configuration "
            "describes"
        )
    for name, mine in ours.items():
        if found[name].shape != expected[mine]:
            raise CheckpointError(
                f"'{source}': {shown(name)} has shape {tuple(found[name].shape)}; "
                f"its configuration needs {tuple(expected[mine])}"
            )
        if found[name].is_floating_point() and not torch.isfinite(found[name]).all():
            raise CheckpointError(f"'{source}' holds NaN or infinite values in '{name}'")
    return state, KeyReport(tuple(ours), ignored=ignored)


def executed(source: Path, asked: int, horizon: int, first: int) -> int:
    """Actions of a chunk that are executed: what was asked for, or as many as there are.

    The other projects cut them out of the horizon, from action `first` on, and take what they get.

    Warns:
        UserWarning: if there are fewer.
    """
    there = horizon - first
    if there < 1 or asked <= there:
        return asked
    warnings.warn(
        f"'{source}' has n_action_steps {asked}, but of the horizon {horizon} only {there} actions "
        f"are left from number {first} on: {there} are executed, as in the project that it is from",
        stacklevel=2,
    )
    return there


def unwrapped(source: Path, found: Mapping[str, _T]) -> dict[str, _T]:
    """Weights by name, without what DistributedDataParallel and torch.compile put before the names.

    Raises:
        CheckpointError: if two then have one name.
    """
    bare = {_WRAPPED.sub("", name): value for name, value in found.items()}
    if len(bare) < len(found):
        counts = Counter(_WRAPPED.sub("", name) for name in found)
        twice = [name for name, count in counts.items() if count > 1]
        raise CheckpointError(
            f"'{source}' holds two weights under one name, wrapped and as they are: {_some(twice)}"
        )
    return bare


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(name) for name in names[:_SHOWN]) + more
