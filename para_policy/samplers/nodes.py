"""Nodes: the steps whose prediction the network is asked for; between them it is interpolated.

With a linear model of the step, S_s(X) = Phi_s X + ..., the prediction splits into what the model says
of X_s and a remainder. The prediction jumps with every xi_s; the remainder hardly does, so a few steps
tell it for all (collocation).
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from para_policy.errors import InputError

_INTERPOLATION = (0.6, 0.15, 0.03, 0.006)
"""Errors of the interpolation that the levels may have, as shares of the tolerance. The first is only
to come near; the second is what most samples end on; the others are for those that it is not enough for,
the last one where there are hundreds of steps."""
_CHECKED = 0.2, 4
"""Steps that a level is checked at: as a share of its nodes, and at most."""
_ALMOST_ALL = 0.75
"""Share of the steps from which on a level is no cheaper than all of them."""
_FEWEST = 8
"""With fewer steps a level saves nothing."""
_SHARE = 0.03
"""Of the tolerance: what not asking the network again at one node may cost."""
_STILL = (0.15, 0.15, 0.1, 0.02)
_MOVED = (3.0, 3.0, 0.2, 0.04)
"""Shares of the tolerance, by level: a state that moved less is still, one that moved more is not,
whatever it costs. Calibration knows what a move costs the mean sample; the third level is for those
that are more sensitive, and that of all steps above others for those at a decision."""


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nested sets of nodes, from calibration.

    Attributes:
        order: (N,) int64, all steps; the first n of them are the set of n nodes.
        error: (N,) error[n - 1] is what X_N is off by, 95 % of samples, when the remainder is
            interpolated between the first n; largest coordinate, normalised action units.
        sensitivity: (N,) by how much X_N changes, at most and to first order, when the network is
            not asked again at step s alone after X_s moved by 1.
        defect: (N,) what the step formula is off by at step s, 95 % of samples, where the remainder is
            interpolated between the nodes before it in `order`; largest coordinate. None for files of
            earlier releases: then no level is checked.

    Raises:
        InputError: if they do not fit each other.
    """

    order: Tensor
    error: Tensor
    sensitivity: Tensor
    defect: Tensor | None = None

    def __post_init__(self) -> None:
        N = len(self.order)
        if sorted(self.order.tolist()) != list(range(N)):
            raise InputError(f"order of {N} nodes must hold each of the steps 0 to {N - 1} once")
        for name in ("error", "sensitivity", "defect"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.shape != (N,) or not bool((value >= 0).all()):
                raise InputError(
                    f"{name} of the nodes is {tuple(value.shape)}; expected ({N},) numbers, none negative"
                )

    def levels(self, tolerance: float) -> Levels:
        """Sets that get finer and finer for this tolerance, the last one all steps; none for a
        tolerance of 0, or where there are few steps."""
        N = len(self.order)
        sizes: list[int] = []
        for share in _INTERPOLATION:
            enough = (self.error <= share * tolerance).nonzero()
            size = int(enough[0]) + 1 if len(enough) else N
            if 2 <= size < _ALMOST_ALL * N and size not in sizes:
                sizes.append(size)
        sizes = [*sizes, N] if tolerance > 0 and N >= _FEWEST else []
        nodes = torch.zeros(len(sizes), N, dtype=torch.bool)
        checks = torch.zeros_like(nodes)
        slack = torch.zeros(len(sizes), N, dtype=torch.float32)
        floor: list[float] = []
        for level, size in enumerate(sizes):
            nodes[level, self.order[:size].cpu()] = True
            checks[level, self._checks(size)] = True
            last = size == N and level > 0
            kind = 3 if last else 2 if size == N else min(level, 2)
            cost = _gathered(self.sensitivity.double().cpu(), nodes[level])
            still = _SHARE * tolerance / cost.clamp(min=1e-12)
            slack[level] = still.clamp(_STILL[kind] * tolerance, _MOVED[kind] * tolerance)
            # There no interpolation leaves anything, but states that count as still do.
            floor.append(_STILL[kind] * tolerance if last else float(self.error[size - 1]))
        asked = (nodes | checks).long().cumsum(dim=0) > 0
        steps = tuple(one.nonzero()[:, 0] for one in asked)
        defect = torch.zeros(N) if self.defect is None else self.defect.float().cpu()
        # Less than the accuracy of a node means nothing.
        usual = defect.clamp(min=_SHARE * tolerance)
        return Levels(nodes, checks, steps, slack, torch.tensor(floor), usual)

    def _checks(self, size: int) -> list[int]:
        """Steps to check the set of `size` nodes at: in the widest intervals, where each would be split."""
        if self.defect is None:
            return []
        nodes = sorted(self.order[:size].tolist())
        split: dict[int, int] = {}
        for step in self.order[size:].tolist():
            split.setdefault(bisect(nodes, step), step)
        widest = sorted(split, key=lambda end: nodes[end - 1] - nodes[end])
        share, most = _CHECKED
        return [split[end] for end in widest[: min(most, max(1, round(share * size)))]]

    def to(self, device: torch.device | str) -> Nodes:
        """A copy with its tensors on `device`."""
        defect = None if self.defect is None else self.defect.to(device)
        return Nodes(
            self.order.to(device), self.error.to(device), self.sensitivity.to(device), defect
        )


@dataclass(frozen=True, eq=False)
class Levels:
    """Sets of nodes for one tolerance, from the coarsest to all steps.

    Attributes:
        nodes: (L, N) bool.
        checks: (L, N) bool, steps that a level is checked at, none of them its nodes.
        steps: L lists, the nodes and the checks of a level and of those below it.
        slack: (L, N) how far a state may move until the network is asked again at its step.
        floor: (L,) what interpolation leaves, see `Nodes.error`, or on the last level what rests.
        defect: (N,) usual ones at checks; see `Nodes.defect`.
    """

    nodes: Tensor
    checks: Tensor
    steps: tuple[Tensor, ...]
    slack: Tensor
    floor: Tensor
    defect: Tensor

    def __len__(self) -> int:
        return self.nodes.shape[0]

    @property
    def checked(self) -> Tensor:
        """(L,) bool, levels that have checks."""
        return self.checks.any(dim=1)

    def like(self, X: Tensor) -> Levels:
        """With the device and dtype of `X`."""
        steps = tuple(one.to(X.device) for one in self.steps)
        return replace(
            self,
            nodes=self.nodes.to(X.device),
            checks=self.checks.to(X.device),
            steps=steps,
            slack=self.slack.to(X),
            floor=self.floor.to(X),
            defect=self.defect.to(X),
        )


def _gathered(value: Tensor, nodes: Tensor) -> Tensor:
    """(N,) sums of `value` (N,) over the steps that each node (N,) speaks for, with the weights of
    linear interpolation; 0 for other steps.

    >>> _gathered(torch.ones(5), torch.tensor([True, False, False, False, True]))
    tensor([2.5000, 0.0000, 0.0000, 0.0000, 2.5000])
    """
    at: Sequence[int] = nodes.nonzero()[:, 0].tolist()
    total = torch.where(nodes, value, 0.0)
    for a, b in itertools.pairwise(at):
        between = torch.arange(a + 1, b)
        share = ((between - a) / (b - a)).to(value)
        total[a] += ((1 - share) * value[a + 1 : b]).sum()
        total[b] += (share * value[a + 1 : b]).sum()
    return total
