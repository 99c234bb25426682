"""Model switching (PCM, So et al. 2025): a fine-tuned network begins the solve, the base ends it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from para_policy.diffusion.denoiser import Network
from para_policy.errors import InputError
from para_policy.samplers.checks import check_count, check_number

Blend = Literal["weights", "features", "none"]

Consistency = Callable[[float], Network]
"""`consistency(share)` is the network with `share` of the fine-tuning in its weights: with 1 the
fine-tuned network, with 0 the base network."""

_LONGEST = 1000


@dataclass(frozen=True)
class Switching:
    """Share lambda(k) = clip(1 - stiffness k / horizon, 0, 1) of the fine-tuned network in round k.

    Nothing that the fine-tuned network has touched is ever final: rounds with lambda > 0 freeze no
    state and move no window. From the first round with lambda = 0 on the base network iterates and
    its residual test decides, so the fine-tuned network only makes the initial guess of an exact
    solve.

    Attributes:
        consistency: the fine-tuned network.
        stiffness: s, how fast the share falls; above 0.
        horizon: K, in rounds, at least 1.
        blend: "weights" W_0 + lambda dW (one network call), "features" lambda of the fine-tuned and
            1 - lambda of the base network's step (two calls where 0 < lambda < 1), or "none": the
            fine-tuned network alone as long as lambda > 0.
        stride: rounds with lambda > 0 evaluate every so-many-th row and interpolate the defects
            between; a draft need not be exact.
    """

    consistency: Consistency
    stiffness: float = 1.0
    horizon: int = 1
    blend: Blend = "weights"
    stride: int = 1

    def __post_init__(self) -> None:
        check_count("horizon", self.horizon)
        check_number("stiffness", self.stiffness, zero_allowed=False)
        if self.horizon > _LONGEST * self.stiffness:
            raise InputError(
                f"horizon is {self.horizon}: with stiffness {self.stiffness} the switch hardly ever "
                f"comes; expected at most {_LONGEST} rounds, horizon / stiffness"
            )
        check_count("stride", self.stride)
        if self.blend not in get_args(Blend):
            raise InputError(
                f"blend is {self.blend!r}; expected one of {', '.join(get_args(Blend))}"
            )

    def share(self, k: int) -> float:
        """lambda(k), from 0 (the base network) to 1.

        >>> switching = Switching(lambda share: None, stiffness=2.0, horizon=4)
        >>> [switching.share(k) for k in range(4)]
        [1.0, 0.5, 0.0, 0.0]
        """
        return max(0.0, 1.0 - self.stiffness * k / self.horizon)

    @property
    def drafts(self) -> int:
        """Rounds with lambda > 0."""
        return next(k for k in itertools.count() if self.share(k) == 0.0)

    def networks(self, k: int) -> tuple[tuple[Network | None, float], ...]:
        """Networks to evaluate in round `k` and their shares of the step; None is the base network."""
        share = self.share(k)
        if share == 0.0:
            return BASE
        if self.blend == "weights":
            return ((self.consistency(share), 1.0),)
        if self.blend == "none" or share == 1.0:
            return ((self.consistency(1.0), 1.0),)
        return ((self.consistency(1.0), share), (None, 1.0 - share))


BASE: tuple[tuple[Network | None, float], ...] = ((None, 1.0),)
"""What a round of the base network evaluates."""
