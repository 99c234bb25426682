"""Warnings of noise schedules that are legal, and that nobody can have meant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PURE_NOISE = 1e-3
"""Largest alpha_bar of a state of which the network sees nothing but noise."""

_LEFT = 0.02
"""Standard deviation of noise on a finished action that is worth a word; actions reach from -1 to 1."""

_NO_NOISE_LEFT = {
    "ddpm": "use a spacing and steps_offset whose last timestep is 0, or variance_type='fixed_small'",
    "ddim": "use set_alpha_to_one=True",
    "dpmsolver++": "use final_sigmas_type='zero'",
    "unipc": "use final_sigmas_type='zero'",
    "deis": "use a schedule that begins with less noise (beta_start), or unipc",
    "flow_match_euler": "a smaller sigma_min leaves less",
}


def warn_of_absurd(
    kind: str, timesteps: NDArray[Any], columns: Mapping[str, NDArray[np.float64]]
) -> None:
    """Warn of steps that only cost time, and of noise that is left on what they make.

    Args:
        kind: of the scheduler, as in `StepTable`.
        timesteps, columns: as there.

    Warns:
        UserWarning: with what is absurd, how much of it, and what to change.
    """
    repeated = np.flatnonzero(np.diff(timesteps) == 0)
    if kind == "flow_match_heun":  # looks twice at every level
        repeated = repeated[:0]
    blind = int((columns["signal"][repeated] ** 2 < _PURE_NOISE).sum())
    if blind:
        warnings.warn(
            f"{blind} of {len(timesteps)} steps repeat timestep {timesteps[0]}, where the state is "
            "pure noise: they cost network calls and find nothing. Use another spacing of noise "
            "levels (use_karras_sigmas=False and so on) or fewer steps",
            stacklevel=2,
        )
    left = noise_left(columns)
    if left > _LEFT:
        warnings.warn(
            f"noise of standard deviation {left:.2g} is left on every finished sample, which lies "
            f"between -1 and 1: {_NO_NOISE_LEFT[kind]}",
            stacklevel=2,
        )


def noise_left(columns: Mapping[str, NDArray[np.float64]]) -> float:
    """Standard deviation of what X_0 and all xi leave in X_N if the network is never wrong."""
    variance = 1.0
    for kept, added in zip(columns["B"], columns["c"], strict=True):
        variance = kept**2 * variance + added**2
    return float(np.sqrt(variance))
