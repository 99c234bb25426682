"""Draft: a guess that a fine-tuned network makes in rounds of its own (PCM, So et al. 2025)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from para_policy.diffusion.denoiser import Network
from para_policy.errors import InputError
from para_policy.samplers.checks import check_count, check_number
from para_policy.samplers.fixed_point import FixedPointSolve, where
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
fine-tuned network, with 0 the base network."""

_LONGEST = 1000


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
        shares = [
            (denoiser if network is None else denoiser.with_network(network), share)
            for network, share in self.networks(k)
        ]
        return Launch(len(rows.at), len(shares), partial(self._sweep, solve, shares, rows))

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

    @staticmethod
    def _sweep(
        solve: FixedPointSolve, shares: Sequence[tuple[Denoiser, float]], rows: Rows
    ) -> None:
        process = solve.process
        i, s = solve.places(rows)
        x = solve.X[i, s]
        clean = [(one.predict_clean(process, x, s, i), share) for one, share in shares]
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
        solve.count(rows, change.size, len(shares))


def _weighted(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Sum of values times their shares; exactly the value where there is one with share 1."""
    first, share = parts[0]
    return sum((value * weight for value, weight in parts[1:]), start=first * share)
