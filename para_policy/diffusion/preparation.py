"""Preparation of a scheduler for its step table: what cannot be represented is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from para_policy.arguments import check_kind
from para_policy.diffusion.schedule_options import check_options
from para_policy.diffusion.schedulers import (
    Scheduler,
    build_scheduler,
    kind_of,
    own_options,
)
from para_policy.errors import InputError

_OF_A_RUN = {"model_outputs", "last_sample", "sample", "prev_derivative", "dt"}
"""What a scheduler that has run holds of the network, maybe with gradients."""


def prepare(
    scheduler: Scheduler | Mapping[str, Any], num_steps: int | None, eta: float
) -> Scheduler:
    """Return a copy of the scheduler with its timesteps set, if a step table can represent it.

    Raises:
        InputError: if it cannot, naming the option; see `Process.from_scheduler`.
    """
    if isinstance(scheduler, Mapping):
        scheduler = build_scheduler(scheduler)
    _refuse_unrepresentable(scheduler, eta)
    scheduler = _with_timesteps(scheduler, num_steps)
    _check_timesteps(scheduler)
    return scheduler


def _refuse_unrepresentable(scheduler: Any, eta: float) -> None:
    kind = kind_of(scheduler)
    check_kind("eta", eta, Real)
    if not 0.0 <= eta <= 1.0:
        raise InputError(f"eta is {eta}; it must lie in [0, 1]")
    if eta > 0 and kind != "ddim":
        raise InputError(f"eta is {eta}, but only DDIM takes it, not {type(scheduler).__name__}")
    config = own_options(scheduler)
    check_options(config)
    predictions: tuple[object, ...] = ("epsilon", "sample", "v_prediction")
    if config.get("use_flow_sigmas"):
        predictions = ("flow_prediction", "sample")
    allowed: dict[str, tuple[object, ...]] = {
        "prediction_type": predictions,
        "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", None),
        "thresholding": (False,),
        "algorithm_type": ("dpmsolver++", "deis"),
        "solver_order": (1, 2) if kind == "dpmsolver++" else (1,),
        "predict_x0": (True,),
        "solver_p": (None,),
        "use_dynamic_shifting": (False,),
        "invert_sigmas": (False,) if config.get("stochastic_sampling") else (False, True),
    }
    why = {
        "thresholding": "dynamic thresholding couples all coordinates of a sample",
        "variance_type": "a variance that is learned, or the log form of fixed_large, is no fixed table",
        "solver_order": "its steps look further back than at the one prediction before",
        "predict_x0": "its steps look back at predicted noise, and so at earlier states",
        "use_dynamic_shifting": "its levels depend on the size of an image",
        "invert_sigmas": "stochastic_sampling would end in noise",
    }
    for option, values in allowed.items():
        if option in config and config[option] not in values:
            reason = f" ({why[option]})" if option in why else ""
            raise InputError(
                f"{type(scheduler).__name__} with {option}={config[option]!r} cannot be represented{reason}; "
                f"use one of {[value for value in values if value is not None]}"
            )


def _with_timesteps(scheduler: Scheduler, num_steps: int | None) -> Scheduler:
    scheduler = copy.copy(scheduler)
    for name in _OF_A_RUN & vars(scheduler).keys():
        setattr(scheduler, name, None)
    scheduler = copy.deepcopy(scheduler)
    total = scheduler.config.num_train_timesteps
    if num_steps is None:
        known = getattr(scheduler, "num_inference_steps", None) is not None
        if not known and not getattr(scheduler, "custom_timesteps", False):
            _set(scheduler, total)
        return scheduler
    if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)):
        raise InputError(f"num_steps is {num_steps!r}; expected an integer")
    heun = kind_of(scheduler) == "flow_match_heun"
    most = 2 * total - 1 if heun else total
    if not 1 <= num_steps <= most:
        raise InputError(f"num_steps is {num_steps}; this schedule allows 1 to {most}")
    if heun and num_steps % 2 == 0:
        raise InputError(
            f"num_steps is {num_steps}; Heun's rule asks the network twice for each noise level but "
            f"the last: expected an odd number, such as {num_steps - 1} or {num_steps + 1}"
        )
    _set(scheduler, (int(num_steps) + 1) // 2 if heun else int(num_steps))
    return scheduler


def _set(scheduler: Scheduler, count: int) -> None:
    try:
        scheduler.set_timesteps(count)
    except Exception as error:  # where diffusers finds options that it takes and cannot use
        raise InputError(
            f"{type(scheduler).__name__} cannot set {count} timesteps "
            f"({type(error).__name__}: {error}); correct the noise schedule"
        ) from error


def _check_timesteps(scheduler: Scheduler) -> None:
    """Some spacings overshoot the schedule for some step counts."""
    t, total = scheduler.timesteps.cpu().numpy(), scheduler.config.num_train_timesteps
    if t.dtype.kind == "f":  # continuous
        return
    if t.min() < 0 or t.max() >= total:
        raise InputError(
            f"{len(t)} timesteps from {t[0]} to {t[-1]} leave the schedule's 0 to {total - 1}; "
            "use another num_steps, timestep_spacing or steps_offset"
        )
