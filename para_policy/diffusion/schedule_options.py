"""Options of noise schedulers, checked before diffusers computes with them: it takes any value.

The one check for schedules of all checkpoint formats, of training configurations and of live
schedulers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from para_policy.diffusion.flow import Velocity
from para_policy.errors import InputError, shown

MOST_TIMESTEPS = 10_000
"""Of training; the networks that are known have 1000 or fewer."""

_Check = Callable[[Any], bool]


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InputError where an option cannot be meant; options that are not known are left alone."""
    for name, (is_meant, expected) in _OPTIONS.items():
        if name in options and not is_meant(options[name]):
            raise InputError(f"{name} is {shown(options[name])}; expected {expected}")
    betas = options.get("trained_betas")
    if betas is not None:
        _check_betas(betas, options.get("num_train_timesteps", 1000))


def _check_betas(betas: Any, count: int) -> None:
    if not isinstance(betas, (Sequence, np.ndarray)) or isinstance(betas, str):
        raise InputError(f"trained_betas is {shown(betas)}; expected a list of numbers")
    if len(betas) != count:
        raise InputError(
            f"trained_betas has {len(betas)} values; expected one for each of the "
            f"num_train_timesteps {count}"
        )
    for i, beta in enumerate(betas):
        if not _is_number(beta) or not 0 < beta <= 1:
            raise InputError(f"trained_betas[{i}] is {shown(beta)}; expected a number in (0, 1]")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _count(least: int, most: int) -> tuple[_Check, str]:
    def is_meant(value: Any) -> bool:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        return whole and least <= value <= most

    return is_meant, f"an integer from {least} to {most}"


def _between(low: float, high: float) -> tuple[_Check, str]:
    return (
        lambda value: _is_number(value) and low <= value <= high,
        f"a number from {low:g} to {high:g}",
    )


def _one_of(*words: str) -> tuple[_Check, str]:
    return lambda value: isinstance(value, str) and value in words, " or ".join(words)


def _is_beta(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_log_snr(value: Any) -> bool:
    # JSON has no infinity: diffusers writes and reads it as text.
    return value == "-inf" or (_is_number(value) and value < math.inf)


def _are_times(value: Any) -> bool:
    ends = value if isinstance(value, (list, tuple)) else ()
    return len(ends) == 2 and all(_is_number(end) and abs(end) <= MOST_TIMESTEPS for end in ends)


_SWITCH: tuple[_Check, str] = (lambda value: isinstance(value, (bool, np.bool_)), "true or false")
_SIZE = _between(1e-3, 1e6)

_OPTIONS: dict[str, tuple[_Check, str]] = {
    "num_train_timesteps": _count(1, MOST_TIMESTEPS),
    "steps_offset": _count(0, MOST_TIMESTEPS),
    "solver_order": _count(1, 3),
    "beta_start": (_is_beta, "a number above 0 and below 1"),
    "beta_end": (_is_beta, "a number above 0 and below 1"),
    "clip_sample_range": _SIZE,
    "sample_max_value": _SIZE,
    "flow_shift": _SIZE,
    "shift": _SIZE,
    "shift_terminal": (
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "a number of at least 0 and below 1, or null",
    ),
    "disable_corrector": (
        lambda value: isinstance(value, (list, tuple)) and all(type(s) is int for s in value),
        "a list of steps",
    ),
    "dynamic_thresholding_ratio": _between(0, 1),
    "timestep_spacing": _one_of("leading", "linspace", "trailing"),
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "velocity": _one_of(*get_args(Velocity)),
    "sigma_min": (
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),  # None of UniPC
        "a number of at least 0 and below 1",
    ),
    "times": (_are_times, f"two numbers from -{MOST_TIMESTEPS} to {MOST_TIMESTEPS}"),
    "lambda_min_clipped": (_is_log_snr, "a number, or -inf"),
    **dict.fromkeys(
        (
            "clip_sample",
            "thresholding",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
            "lower_order_final",
            "euler_at_final",
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "use_lu_lambdas",
            "use_flow_sigmas",
            "use_dynamic_shifting",
            "invert_sigmas",
            "stochastic_sampling",
            "predict_x0",
        ),
        _SWITCH,
    ),
}
