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

_AMPLIFIED = 25.0
"""Largest factor between an error of the network's output and that of the state that a step makes of it.

On the shipped PushT policy 12 shows no effect (DPM-Solver++, 8 steps from a log-SNR of -5.1); 31 takes one
coordinate in 40 out of [-1.2, 1.2] (DEIS, 99 steps, cosine), and 380 nine in ten (DEIS, 8 steps)."""

_DATA = 0.3
"""Standard deviation of the actions that samples are compared with; normalised ones reach from -1 to 1."""

_TOO_FAR = 1.25
"""Largest ratio between the standard deviation of samples and that of the data, with an exact network.

DDIM with 100 training steps, cosine: 0.98 with 100 steps, 1.18 with 60, which begin at timestep 59, 1.30 with
51, which begin at 50, and 1.78 with 51 and timestep_spacing="trailing"."""

_CLIPPED = "use clip_sample=True, or timestep_spacing='leading'"
_NO_CLIPPING = "it has no clipping: use dpmsolver++ with lambda_min_clipped=-5.1, or ddim"
_NOT_AMPLIFIED = {
    "ddpm": _CLIPPED,
    "ddim": _CLIPPED,
    "dpmsolver++": "use lambda_min_clipped=-5.1, or more steps",
    "unipc": _NO_CLIPPING,
    "deis": _NO_CLIPPING,
}

_NO_NOISE_LEFT = {
    "ddpm": "use a spacing and steps_offset whose last timestep is 0, or variance_type='fixed_small'",
    "ddim": "use set_alpha_to_one=True and a num_steps that divides that of training",
    "dpmsolver++": "use final_sigmas_type='zero'",
    "unipc": "use final_sigmas_type='zero'",
    "deis": "use a schedule that begins with less noise (beta_start), or unipc",
    "flow_match_euler": "a smaller sigma_min leaves less",
}


def warn_of_absurd(
    kind: str,
    timesteps: NDArray[Any],
    clip: float | None,
    columns: Mapping[str, NDArray[np.float64]],
) -> None:
    """Warn of steps that only cost time, amplify errors or make noise of actions, or that leave some.

    Args:
        kind: of the scheduler, as in `StepTable`.
        timesteps, clip, columns: as there.

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
    grown = amplification(clip, columns)
    worst = int(grown.argmax())
    if grown[worst] > _AMPLIFIED:
        warnings.warn(
            f"step {worst} of {len(timesteps)} makes an error of the network {grown[worst]:.0f} times as "
            f"large, so near pure noise is timestep {timesteps[worst]}: {_NOT_AMPLIFIED[kind]}",
            stacklevel=2,
        )
    ratio = widening(columns)
    if ratio > _TOO_FAR:
        warnings.warn(
            f"num_steps is {len(timesteps)}, with which even an exact network spreads the actions "
            f"{ratio:.2g} times as far as its data: noise is taken for actions. Use more steps, a number "
            "that divides that of training, or variance_type='fixed_small'",
            stacklevel=2,
        )
    left = noise_left(columns)
    if left > _LEFT:
        warnings.warn(
            f"noise of standard deviation {left:.2g} is left on every finished sample, which lies "
            f"between -1 and 1: {_NO_NOISE_LEFT[kind]}",
            stacklevel=2,
        )


def widening(columns: Mapping[str, NDArray[np.float64]]) -> float:
    """Standard deviation of the samples of an exact network, of data normal around 0, over the data's.

    Such a network's clean sample is proportional to the state, so each step is linear in the state and
    the clean sample before. What is clipped of normal data is left out.
    """
    signal, spread = columns["signal"][:-1], columns["spread"][:-1]
    clean = signal * _DATA**2 / ((signal * _DATA) ** 2 + spread**2)
    kept = columns["B"] + (columns["A"] + columns["R"]) * clean
    # Variance of the state, covariance with the clean sample before, variance of that.
    xx, xp, pp = 1.0, 0.0, 0.0
    for k, g, h, c in zip(kept, clean, columns["H"], columns["c"], strict=True):
        xx, xp, pp = (
            k**2 * xx + 2 * k * h * xp + h**2 * pp + c**2,
            g * (k * xx + h * xp),
            g**2 * xx,
        )
    return float(np.sqrt(xx)) / _DATA


def noise_left(columns: Mapping[str, NDArray[np.float64]]) -> float:
    """Standard deviation of what X_0 and all xi leave in X_N if the network is never wrong."""
    variance = 1.0
    for kept, added in zip(columns["B"], columns["c"], strict=True):
        variance = kept**2 * variance + added**2
    return float(np.sqrt(variance))


def amplification(
    clip: float | None, columns: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """(N,) error of the state that each step makes, for an error of 1 of the network's output.

    Clipping bounds the part of the clean sample that it holds for.
    """
    unbounded = columns["R"] if clip is not None else columns["A"] + columns["R"]
    return np.abs(unbounded * columns["x0_from_output"])
