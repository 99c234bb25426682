"""Step tables of flow matching: Euler steps along x = (1 - sigma) x0 + sigma e.

The velocity dx / dsigma = e - x0 that a network predicts gives the clean sample x - sigma v, and with it
an Euler step is the recurrence of `para_policy.diffusion.process` (Lipman et al. 2023, arXiv 2210.02747;
Liu et al. 2023, arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from para_policy.errors import InputError, shown

Array = NDArray[np.float64]

Velocity: TypeAlias = Literal["noise-data", "data-noise"]
"""What a network predicts: the way from data to noise (diffusers, openpi) or back (LeRobot's
multi_task_dit)."""


def flow_columns(sigmas: Array, velocity: Velocity, sigma_min: float) -> dict[str, Array]:
    """Columns of a step table; arguments are those of `Process.from_flow`, checked."""
    signal, spread = 1 - sigmas, sigmas + sigma_min * (1 - sigmas)
    zero = np.zeros(len(sigmas) - 1)
    return {
        "A": (sigmas[:-1] - sigmas[1:]) / spread[:-1],
        "B": spread[1:] / spread[:-1],
        "R": zero,
        "H": zero,
        "c": zero,
        **path(signal, spread),
        "x0_from_x": np.full_like(zero, 1 - sigma_min),
        "x0_from_output": -spread[:-1] if velocity == "noise-data" else spread[:-1],
    }


def path(signal: Array, spread: Array) -> dict[str, Array]:
    """Columns of the path x = signal x0 + spread e: itself, and the yardstick `sigma`.

    The latter is the standard deviation of the cleaner state given the noisier one and x0, for
    whatever path; for a variance-preserving one it is that of DDPM (Ho et al. 2020, eq. 7).
    """
    now, after = spread[:-1], spread[1:]
    kept = np.divide(signal[:-1], signal[1:], out=np.ones_like(now), where=signal[1:] > 0)
    fresh = now**2 - (kept * after) ** 2
    yardstick = np.append(after / now * np.sqrt(np.maximum(fresh, 0.0)), 0.0)
    return {"sigma": yardstick, "signal": signal, "spread": spread}


def checked_sigmas(sigmas: Any, name: str = "sigmas") -> Array:
    """Noise levels (N + 1,) float64.

    Raises:
        InputError: unless they fall from at most 1, and none but the last is 0.
    """
    levels = _numbers(sigmas, name)
    if len(levels) < 2:
        raise InputError(f"{name} has {len(levels)} values; expected one more than steps")
    if not (levels[0] <= 1 and levels[-1] >= 0 and (levels[:-1] > 0).all()):
        raise InputError(
            f"{name} reach from {levels.max():g} to {levels.min():g}; expected noise levels "
            "from at most 1 to 0, of which only the last may be 0"
        )
    rising = np.flatnonzero(np.diff(levels) > 0)
    if len(rising):
        s = int(rising[0])
        raise InputError(
            f"{name} rise from {levels[s]:g} to {levels[s + 1]:g} at step {s}; noise levels must fall"
        )
    return levels


def checked_flow(
    sigmas: Any, timesteps: Any, velocity: str, sigma_min: float
) -> tuple[Array, Array]:
    """Noise levels (N + 1,) and timesteps (N,), float64; arguments as for `Process.from_flow`.

    Raises:
        InputError: as there.
    """
    levels = checked_sigmas(sigmas)
    told = levels[:-1] if timesteps is None else _numbers(timesteps, "timesteps")
    if len(told) != len(levels) - 1:
        raise InputError(
            f"{len(told)} timesteps for {len(levels) - 1} steps; expected one for each"
        )
    if velocity not in get_args(Velocity):
        raise InputError(
            f"velocity is {velocity!r}; expected one of {', '.join(get_args(Velocity))}"
        )
    number = isinstance(sigma_min, (int, float)) and not isinstance(sigma_min, bool)
    if not number or not 0 <= sigma_min < 1:
        raise InputError(
            f"sigma_min is {shown(sigma_min)}; expected a number of at least 0 and below 1"
        )
    return levels, told


def _numbers(values: Sequence[float] | Any, name: str) -> Array:
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {shown(values)}; expected a list of numbers") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(f"{name} is {shown(values)}; expected a list of finite numbers")
    return numbers
