"""Diffusers schedulers that a step table can represent, made from their configurations."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)

from para_policy.arguments import check_kind
from para_policy.diffusion.flow_matching import FlowMatching
from para_policy.diffusion.schedule_options import check_options
from para_policy.errors import InputError, shown

Scheduler: TypeAlias = DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler | FlowMatching

SCHEDULERS: dict[str, type[Any]] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "flow_match_euler": FlowMatching,
}

# They take the same options and steps; the parallel ones only add a batched step, which is not used.
_PARALLEL: dict[str, type[Any]] = {"ddpm": DDPMParallelScheduler, "ddim": DDIMParallelScheduler}

FLOWS = ("flow_match_euler",)
"""Kinds whose path leads straight from data to noise; the others preserve the variance."""

# Betas that diffusers makes for DDPM only.
_OF_DDPM = ("laplace", "sigmoid")

# DPM-Solver has no clipping; below this log-SNR a cosine schedule divides by almost zero.
# The value is the one that diffusers recommends for `squaredcos_cap_v2`.
_LAMBDA_MIN_COSINE = -5.1


def build_scheduler(config: Mapping[str, Any], kind: str | None = None) -> Scheduler:
    """Make a diffusers scheduler from its configuration.

    Args:
        config: with `_class_name`, as diffusers saves it.
        kind: "ddpm", "ddim" or "dpmsolver++" to use the same noise schedule with another sampler.

    Raises:
        InputError: for an unknown class, kind or key, or values that make no noise schedule.
    """
    trained = SCHEDULERS[scheduler_kind(config)]
    known = _options(trained)
    unknown = sorted(key for key in config if key not in known and not key.startswith("_"))
    if unknown:
        raise InputError(
            f"{trained.__name__} has no option {unknown}; check the spelling or the diffusers version"
        )
    # Not `from_config`: it drops what `_use_default_values` lists, and diffusers lists there every
    # option that was passed by position, such as the number of training steps.
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if kind is None:
        return _construct(trained, given)
    if kind not in SCHEDULERS:
        raise InputError(f"unknown scheduler {kind!r}; expected one of {sorted(SCHEDULERS)}")
    target = SCHEDULERS[kind]
    if (kind in FLOWS) != (scheduler_kind(config) in FLOWS):
        raise InputError(
            f"scheduler is {kind!r}, but the network was trained for {trained.__name__}: "
            "flow matching and diffusion have different paths; leave the scheduler out"
        )
    shared = _options(target)
    options = {key: value for key, value in given.items() if key in shared}
    if target is not trained and options.get("beta_schedule") in _OF_DDPM:
        del options["beta_schedule"]
        options["trained_betas"] = _construct(trained, given).betas.tolist()
    if kind == "dpmsolver++" and config.get("beta_schedule") == "squaredcos_cap_v2":
        options.setdefault("lambda_min_clipped", _LAMBDA_MIN_COSINE)
    if target is not trained:
        options.pop("variance_type", None)
    return _construct(target, options)


def _construct(scheduler: type[Any], options: Mapping[str, Any]) -> Scheduler:
    check_options(options)
    try:
        built: Scheduler = scheduler(**options)
    # diffusers does not check its options: what it raises depends on where they fail.
    except Exception as error:
        raise InputError(
            f"{scheduler.__name__} cannot be made from {shown(dict(options))} "
            f"({type(error).__name__}: {error}); correct the noise schedule"
        ) from error
    alpha_bar = getattr(built, "alphas_cumprod", torch.ones(()))  # a flow has none
    if not ((alpha_bar >= 0) & (alpha_bar <= 1)).all():
        raise InputError(
            f"{scheduler.__name__} with {shown(dict(options))} has betas that are no noise schedule; "
            "expected values in [0, 1]"
        )
    return built


def scheduler_kind(config: Mapping[str, Any]) -> str:
    """Return "ddpm", "ddim" or "dpmsolver++" for a scheduler configuration.

    Raises:
        InputError: for another class.
    """
    named = config.get("_class_name")
    for kinds in (SCHEDULERS, _PARALLEL):
        for kind, scheduler in kinds.items():
            if named == scheduler.__name__:
                return kind
    expected = sorted(scheduler.__name__ for scheduler in SCHEDULERS.values())
    raise InputError(
        f"noise scheduler _class_name is {config.get('_class_name')!r}; expected one of {expected}"
    )


def own_options(scheduler: Any) -> dict[str, Any]:
    """Options of a diffusers scheduler that its class knows.

    `Other.from_config(scheduler.config)` keeps what only the former class knew, without effect.
    """
    known = {name for base in type(scheduler).__mro__[:-1] for name in _options(base)}
    return {key: value for key, value in scheduler.config.items() if key in known}


def kind_of(scheduler: Any) -> str:
    """Return "ddpm", "ddim" or "dpmsolver++" for a diffusers scheduler.

    Raises:
        InputError: for an object of another class.
    """
    for kinds in (SCHEDULERS, _PARALLEL):
        for kind, known in kinds.items():
            if isinstance(scheduler, known):
                return kind
    expected = ", ".join(cls.__name__ for cls in SCHEDULERS.values())
    raise InputError(f"cannot represent a {type(scheduler).__name__}; expected one of {expected}")


def _options(scheduler: type[Any]) -> set[str]:
    return set(inspect.signature(scheduler.__init__).parameters) - {"self"}


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
    allowed: dict[str, tuple[object, ...]] = {
        "prediction_type": ("epsilon", "sample", "v_prediction"),
        "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", None),
        "thresholding": (False,),
        "algorithm_type": ("dpmsolver++",),
        "solver_order": (1, 2),
        "use_flow_sigmas": (False,),
    }
    why = {
        "thresholding": "dynamic thresholding couples all coordinates of a sample",
        "variance_type": "a variance that is learned, or the log form of fixed_large, is no fixed table",
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
    if hasattr(scheduler, "model_outputs"):
        # A multistep scheduler that has run holds tensors of the network, maybe with gradients.
        scheduler.model_outputs = [None] * len(scheduler.model_outputs)
    scheduler = copy.deepcopy(scheduler)
    total = scheduler.config.num_train_timesteps
    if num_steps is None:
        if scheduler.num_inference_steps is None and not getattr(
            scheduler, "custom_timesteps", False
        ):
            scheduler.set_timesteps(total)
        return scheduler
    if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)):
        raise InputError(f"num_steps is {num_steps!r}; expected an integer")
    if not 1 <= num_steps <= total:
        raise InputError(f"num_steps is {num_steps}; this schedule allows 1 to {total}")
    scheduler.set_timesteps(int(num_steps))
    return scheduler


def _check_timesteps(scheduler: Scheduler) -> None:
    """Some spacings overshoot the schedule for some step counts."""
    if scheduler.timesteps.is_floating_point():
        return  # times are continuous
    t, total = scheduler.timesteps.cpu().numpy(), scheduler.config.num_train_timesteps
    if t.min() < 0 or t.max() >= total:
        raise InputError(
            f"{len(t)} timesteps from {t[0]} to {t[-1]} leave the schedule's 0 to {total - 1}; "
            "use another num_steps, timestep_spacing or steps_offset"
        )
