"""Draft: a guess that a fine-tuned network makes in rounds of its own (PCM, So et al. 2025)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Network
from para_policy.errors import InputError
from para_policy.samplers.checks import check_count, check_number
from para_policy.samplers.fixed_point import FixedPointSolve, cleared, where
from para_policy.samplers.guess import Guess, Prior
from para_policy.samplers.sampler import Launch
from para_policy.samplers.window import Pattern, Rows

if TYPE_CHECKING:
    from para_policy.diffusion.denoiser import Denoiser
    from para_policy.diffusion.noise import Noise
    from para_policy.diffusion.process import Process

Blend = Literal["weights", "features", "none"]

Consistency = Callable[[float], Network]
"""`consistency(share)` is the network with `share` of the fine-tuning in its weights: with 1 the
fine-tuned network, with 0 the base network. Where it has a true attribute `informed`, that network
sees how far the solve is, too: its condition is followed by `progress`."""

_LONGEST = 1000
_LEAST_MOVE, _LARGEST_MOVE = 1e-3, 1e3
"""Normalised action units: moves below the one are alike, and so are those above the other."""

PROGRESS = 2
"""Numbers that `progress` tells."""


def progress(k: int, moved: Tensor) -> Tensor:
    """(batch, 2) what an informed network sees of a solve: the round and the spread of its iterate.

    Args:
        k: rounds before.
        moved: (batch,) root mean square by which the last of them has moved the states, normalised
            action units; 0 before the first one.

    >>> progress(1, torch.tensor([0.0, 0.099]))
    tensor([[0.6931, 0.0000],
            [0.6931, 2.0000]])
    """
    spread = (1 + moved.nan_to_num().clamp(max=_LARGEST_MOVE) / _LEAST_MOVE).log10()
    return torch.stack([torch.full_like(moved, math.log1p(k)), spread], dim=1)


def root_mean_square(move: Tensor) -> Tensor:
    """(batch,) of a change (batch, N, *shape) of states X_1 .. X_N."""
    return move.square().flatten(1).mean(dim=1).sqrt()


@dataclass(frozen=True)
class Draft(Guess):
    """Sweeps with share lambda(k) = clip(1 - stiffness k / horizon, 0, 1) of a fine-tuned network.

    Rounds with lambda > 0 sweep over all states, accept none and move no window. From the first round
    with lambda = 0 on the base network iterates from where they ended, and its residual test decides:
    the fine-tuned network only makes the initial guess of an exact solve.

    Attributes:
        consistency: the fine-tuned network.
        stiffness: s, how fast the share falls; above 0.
        horizon: K, in rounds, at least 1.
        blend: "weights" W_0 + lambda dW (one network call), "features" lambda of the fine-tuned and
            1 - lambda of the base network's step (two calls where 0 < lambda < 1), or "none": the
            fine-tuned network alone as long as lambda > 0.
        stride: these rounds evaluate every so-many-th row and interpolate the residuals between; a
            draft need not be exact.
        begin: where the first sweep starts.
    """

    consistency: Consistency
    stiffness: float = 1.0
    horizon: int = 1
    blend: Blend = "none"
    stride: int = 1
    begin: Guess = field(default_factory=Prior)

    def __post_init__(self) -> None:
        check_count("horizon", self.horizon)
        check_number("stiffness", self.stiffness, zero_allowed=False)
        if self.horizon > _LONGEST * self.stiffness:
            raise InputError(
                f"horizon is {self.horizon}: with stiffness {self.stiffness} the switch hardly ever "
                f"comes; expected at most {_LONGEST} rounds, horizon / stiffness"
            )
        check_count("stride", self.stride)
        if not isinstance(self.blend, str) or self.blend not in get_args(Blend):
            raise InputError(
                f"blend is {self.blend!r}; expected one of {', '.join(get_args(Blend))}"
            )

    def start(self, process: Process, noise: Noise) -> tuple[Tensor, int]:
        return self.begin.start(process, noise)

    def given(self, condition: Tensor | None) -> Draft:
        return replace(self, begin=self.begin.given(condition))

    def restarted(self, guess: Guess) -> Draft:
        return replace(self, begin=guess)

    def instead_of_prior(self, guess: Guess) -> Draft:
        return replace(self, begin=self.begin.instead_of_prior(guess))

    def options(self) -> Mapping[str, Any]:
        names = ("stiffness", "horizon", "blend", "stride")
        return {name: getattr(self, name) for name in names}

    def share(self, k: int) -> float:
        """lambda(k), from 0 (the base network) to 1.

        >>> draft = Draft(lambda share: None, stiffness=2.0, horizon=4)
        >>> [draft.share(k) for k in range(4)]
        [1.0, 0.5, 0.0, 0.0]
        """
        return max(0.0, 1.0 - self.stiffness * k / self.horizon)

    @cached_property
    def rounds(self) -> int:  # type: ignore[override]
        """Rounds with lambda > 0."""
        return next(k for k in itertools.count() if self.share(k) == 0.0)

    def launch(self, k: int, solve: FixedPointSolve, denoiser: Denoiser, *, static: bool) -> Launch:
        """See `FixedPointSolve.launch`: round `k`, of all states."""
        stride = 1 if solve.multistep else self.stride
        rows = solve.rows_of(Pattern(solve.N, 0, stride, solve.X.device))
        if not static:
            rows = rows.compact()
        shares = self.networks(k)
        sweep = partial(self._sweep, k, solve, denoiser, shares, rows)
        return Launch(len(rows.at), len(shares), sweep)

    def networks(self, k: int) -> tuple[tuple[Network | None, float], ...]:
        """Networks to evaluate in round `k` and their shares of the step; None is the base network."""
        share = self.share(k)
        if share == 0.0:
            return ((None, 1.0),)
        if self.blend == "weights":
            return ((self.consistency(share), 1.0),)
        if self.blend == "none" or share == 1.0:
            return ((self.consistency(1.0), 1.0),)
        return ((self.consistency(1.0), share), (None, 1.0 - share))

    def _sweep(
        self,
        k: int,
        solve: FixedPointSolve,
        denoiser: Denoiser,
        shares: Sequence[tuple[Network | None, float]],
        rows: Rows,
    ) -> None:
        process = solve.process
        i, s = solve.places(rows)
        x = solve.X[i, s]
        informed = getattr(self.consistency, "informed", False)
        further = progress(k, solve.moved) if informed else None
        clean = []
        for network, share in shares:
            one = denoiser if network is None else denoiser.with_network(network, further)
            clean.append((one.predict_clean(process, x, s, i), share))
        made = _weighted(clean)
        previous = made
        if solve.multistep:
            # A draft of NaN must not live on as the prediction before a row.
            solve.x0[i, s] = torch.where(made.isfinite(), made, 0.0)
            previous = solve.x0[i, (s - 1).clamp(min=0)]
        mean = _weighted([(process.mean(x, x0, previous, s), share) for x0, share in clean])
        target = solve.spread(rows, mean + process.noise(solve.noise.steps[i, s], s))
        change = solve.correct(rows, target)
        # It is passed over as a state, too.
        known = rows.seen & change.size.isfinite()
        solve.write(rows, where(known, target, change.arrived + change.residual) + change.carry)
        if informed:
            move = cleared(change.residual + change.carry, ~rows.valid)
            rows.put(solve.moved, root_mean_square(move))
        solve.count(rows, change.size, len(shares))


def _weighted(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Sum of values times their shares; exactly the value where there is one with share 1."""
    first, share = parts[0]
    return sum((value * weight for value, weight in parts[1:]), start=first * share)
