"""Step tables of flow matching: Euler steps along x = (1 - sigma) x0 + sigma e.

The velocity dx / dsigma = e - x0 that a network predicts gives the clean sample x - sigma v, and with it
an Euler step is the recurrence of `para_policy.diffusion.process` (Lipman et al. 2023, arXiv 2210.02747;
Liu et al. 2023, arXiv 2209.03003). Where the levels lie is free; diffusers shifts them towards noise, as
Esser et al. 2024 (arXiv 2403.03206), eq. 23.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from torch import Tensor

from para_policy.diffusion.paths import Array, Columns, path
from para_policy.errors import InputError, shown

Velocity: TypeAlias = Literal["noise-data", "data-noise"]
"""What a network predicts: the way from data to noise (diffusers, openpi) or back (LeRobot's
multi_task_dit)."""

_ROUNDING = 1e-6
"""Of levels in float32: with a shift of 0.2 those of diffusers begin at 1 + 1e-7."""


def flow_columns(sigmas: Array, velocity: Velocity, sigma_min: float) -> Columns:
    """Columns of Euler steps; arguments are those of `Process.from_flow`, checked."""
    signal, spread = 1 - sigmas, sigmas + sigma_min * (1 - sigmas)
    zero = np.zeros(len(sigmas) - 1)
    return {
        "A": (sigmas[:-1] - sigmas[1:]) / spread[:-1],
        "B": spread[1:] / spread[:-1],
        "R": zero,
        "H": zero.copy(),
        "c": zero,
        **path(signal, spread),
        "x0_from_x": np.full_like(zero, 1 - sigma_min),
        "x0_from_output": -spread[:-1] if velocity == "noise-data" else spread[:-1],
    }


def flow_match_euler_columns(scheduler: Any) -> Columns:
    """Those of diffusers' `FlowMatchEulerDiscreteScheduler`, its timesteps set.

    With `stochastic_sampling` a step draws the noise of its state anew: x' = (1 - sigma') x0 + sigma' xi.
    """
    levels, inverted = _levels_of(scheduler), scheduler.config.invert_sigmas
    # Inverted levels are times of the data, and so is the sign of the velocity.
    columns = flow_columns(levels, "data-noise" if inverted else "noise-data", 0.0)
    if scheduler.config.stochastic_sampling:
        columns |= {"A": 1 - levels[1:], "B": np.zeros_like(levels[1:]), "c": levels[1:]}
    return columns


def flow_match_heun_columns(scheduler: Any) -> Columns:
    """Those of diffusers' `FlowMatchHeunDiscreteScheduler`, its timesteps set: X_1, X_3 .. are its Euler
    steps, X_2, X_4 .. their corrections.

    Heun's rule takes x to x + (sigma' - sigma) (v(x) + v(y)) / 2 after an Euler step to y. Written from y,
    with both velocities as clean samples, the state x drops out:

        x' = y + (sigma - sigma') / (2 sigma') (x0(y) - x0(x))
    """
    levels = _levels_of(scheduler)
    columns = flow_columns(levels, "noise-data", 0.0)
    before, now = levels[:-2][::2], levels[1:-1][::2]
    weight = (before - now) / (2 * now)
    columns["A"][1::2] += weight
    columns["H"][1::2] -= weight
    return columns


def _levels_of(scheduler: Any) -> Array:
    """Noise levels (N + 1,) float64 of a scheduler of diffusers, from noise to data.

    Raises:
        InputError: as `_checked_levels`.
    """
    sigmas = scheduler.sigmas.cpu().numpy().astype(np.float64)
    levels = 1 - sigmas if scheduler.config.get("invert_sigmas") else sigmas
    return _checked_levels(levels, "noise levels of the scheduler")


def _checked_levels(sigmas: Any, name: str) -> Array:
    """Noise levels (N + 1,) float64.

    Raises:
        InputError: unless they fall from at most 1, and none but the last is 0.
    """
    levels = _numbers(sigmas, name)
    if len(levels) < 2:
        raise InputError(f"{name} has {len(levels)} values; expected one more than steps")
    if not (levels[0] <= 1 + _ROUNDING and levels[-1] >= 0 and (levels[:-1] > 0).all()):
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
    levels = _checked_levels(sigmas, "sigmas")
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
    if isinstance(values, Tensor):  # of any device and precision, maybe with gradients
        values = values.detach().cpu().double()
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {shown(values)}; expected a list of numbers") from error
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InputError(f"{name} is {shown(values)}; expected a list of finite numbers")
    return numbers
