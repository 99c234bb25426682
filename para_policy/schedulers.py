"""Diffusers schedulers as step tables: the only part of the core that imports diffusers.

The recurrence that the tables fill is described in `para_policy.process`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from numpy.typing import NDArray

from para_policy.errors import InputError

Scheduler: TypeAlias = DDPMScheduler | DDIMScheduler | DPMSolverMultistepScheduler
Array = NDArray[np.float64]
Table = dict[str, Array]

SCHEDULERS: dict[str, type[Any]] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
}

# DPM-Solver has no clipping; below this log-SNR a cosine schedule divides by almost zero.
# The value is the one that diffusers recommends for `squaredcos_cap_v2`.
_LAMBDA_MIN_COSINE = -5.1


def step_table(
    scheduler: Scheduler | Mapping[str, Any],
    num_steps: int | None,
    eta: float,
    use_clipped_model_output: bool,
) -> tuple[NDArray[np.int64], float | None, Table]:
    """Return timesteps (N,), the clip bound, and every coefficient of the recurrence, (N,) each.

    Arguments and errors are those of `Process.from_scheduler`.
    """
    if isinstance(scheduler, Mapping):
        scheduler = build_scheduler(scheduler)
    _refuse_unrepresentable(scheduler, eta)
    scheduler = _with_timesteps(scheduler, num_steps)
    if isinstance(scheduler, DDPMScheduler):
        table = _ddpm_table(scheduler)
    elif isinstance(scheduler, DDIMScheduler):
        table = _ddim_table(scheduler, eta, use_clipped_model_output)
    else:
        table = _dpmsolver_table(scheduler)
    broken = [name for name, values in table.items() if not np.isfinite(values).all()]
    if broken:
        raise InputError(
            f"this schedule gives infinite coefficients {broken}: alpha_bar reaches 0 "
            "(rescale_betas_zero_snr needs v_prediction or sample prediction)"
        )
    config: Any = scheduler.config
    clip = float(config.clip_sample_range) if config.get("clip_sample", False) else None
    return scheduler.timesteps.cpu().numpy().astype(np.int64), clip, table


def build_scheduler(config: Mapping[str, Any], kind: str | None = None) -> Scheduler:
    """Make a diffusers scheduler from its configuration.

    Args:
        config: with `_class_name`, as diffusers saves it.
        kind: "ddpm", "ddim" or "dpmsolver++" to use the same noise schedule with another sampler.

    Raises:
        InputError: for an unknown class, kind or key.
    """
    trained = SCHEDULERS[scheduler_kind(config)]
    known = set(inspect.signature(trained.__init__).parameters) - {"self"}
    unknown = sorted(key for key in config if key not in known and not key.startswith("_"))
    if unknown:
        raise InputError(
            f"{trained.__name__} has no option {unknown}; check the spelling or the diffusers version"
        )
    if kind is None:
        return trained.from_config(dict(config))
    if kind not in SCHEDULERS:
        raise InputError(f"unknown scheduler {kind!r}; expected one of {sorted(SCHEDULERS)}")
    target = SCHEDULERS[kind]
    shared = set(inspect.signature(target.__init__).parameters)
    options = {key: value for key, value in config.items() if key in shared}
    if kind == "dpmsolver++" and config.get("beta_schedule") == "squaredcos_cap_v2":
        options.setdefault("lambda_min_clipped", _LAMBDA_MIN_COSINE)
    if target is not trained:
        options.pop("variance_type", None)
    return target.from_config(options)


def scheduler_kind(config: Mapping[str, Any]) -> str:
    """Return "ddpm", "ddim" or "dpmsolver++" for a scheduler configuration.

    Raises:
        InputError: for another class.
    """
    for kind, scheduler in SCHEDULERS.items():
        if config.get("_class_name") == scheduler.__name__:
            return kind
    expected = sorted(scheduler.__name__ for scheduler in SCHEDULERS.values())
    raise InputError(
        f"noise scheduler _class_name is {config.get('_class_name')!r}; expected one of {expected}"
    )


def _refuse_unrepresentable(scheduler: Any, eta: float) -> None:
    if not any(isinstance(scheduler, known) for known in SCHEDULERS.values()):
        expected = ", ".join(cls.__name__ for cls in SCHEDULERS.values())
        raise InputError(
            f"cannot represent a {type(scheduler).__name__}; expected one of {expected}"
        )
    if not 0.0 <= eta <= 1.0:
        raise InputError(f"eta is {eta}; it must lie in [0, 1]")
    if eta > 0 and not isinstance(scheduler, DDIMScheduler):
        raise InputError(f"eta is {eta}, but only DDIM takes it, not {type(scheduler).__name__}")
    config = scheduler.config
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
    scheduler = copy.deepcopy(scheduler)
    total = scheduler.config.num_train_timesteps
    if num_steps is None:
        if scheduler.num_inference_steps is None and not getattr(
            scheduler, "custom_timesteps", False
        ):
            scheduler.set_timesteps(total)
        return scheduler
    if not 1 <= num_steps <= total:
        raise InputError(f"num_steps is {num_steps}; this schedule allows 1 to {total}")
    scheduler.set_timesteps(num_steps)
    return scheduler


def _ddpm_table(scheduler: DDPMScheduler) -> Table:
    t = scheduler.timesteps.cpu().numpy()
    # Ask the scheduler itself: its rule depends on whether the timesteps are custom.
    t_previous = np.array([int(scheduler.previous_timestep(int(step))) for step in t])
    abar = _alpha_bar(scheduler, t, t_previous, final=1.0)
    alpha = abar.now / abar.next
    beta = 1 - alpha
    variance = np.maximum((1 - abar.next) / (1 - abar.now) * beta, 1e-20)
    if scheduler.config.variance_type == "fixed_large":
        variance = beta
    std = np.sqrt(variance)
    zero = np.zeros_like(std)
    return {
        "A": np.sqrt(abar.next) * beta / (1 - abar.now),
        "B": np.sqrt(alpha) * (1 - abar.next) / (1 - abar.now),
        "R": zero,
        "H": zero,
        "c": np.where(t > 0, std, 0.0),
        "sigma": np.append(std, 0.0),
        **_conversion(scheduler, np.sqrt(abar.now), np.sqrt(1 - abar.now)),
    }


def _ddim_table(scheduler: DDIMScheduler, eta: float, use_clipped: bool) -> Table:
    t = scheduler.timesteps.cpu().numpy()
    # DDIMScheduler steps by a fixed stride whatever the spacing; parity with it is the contract.
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    abar = _alpha_bar(scheduler, t, t - stride, final=float(scheduler.final_alpha_cumprod))
    variance = (1 - abar.next) / (1 - abar.now) * (1 - abar.now / abar.next)
    std = np.sqrt(np.maximum(variance, 0.0))
    c = eta * std
    direction = np.sqrt(np.maximum(1 - abar.next - c**2, 0.0)) / np.sqrt(1 - abar.now)
    along_x0 = -direction * np.sqrt(abar.now)
    zero = np.zeros_like(std)
    return {
        "A": np.sqrt(abar.next) + (along_x0 if use_clipped else zero),
        "B": direction,
        "R": zero if use_clipped else along_x0,
        "H": zero,
        "c": c,
        "sigma": np.append(std, 0.0),
        **_conversion(scheduler, np.sqrt(abar.now), np.sqrt(1 - abar.now)),
    }


def _dpmsolver_table(scheduler: DPMSolverMultistepScheduler) -> Table:
    ratio = scheduler.sigmas.cpu().numpy().astype(np.float64)
    alpha = 1 / np.sqrt(ratio**2 + 1)
    sigma = ratio * alpha
    with np.errstate(divide="ignore"):
        log_snr = np.log(alpha) - np.log(sigma)
    h = np.diff(log_snr)
    decay = np.exp(-h) - 1
    A = -alpha[1:] * decay
    H = np.zeros_like(A)
    second = _second_order_steps(scheduler, len(A))
    h_before, h_now = h[:-1][second[1:]], h[1:][second[1:]]
    weight = _history_weight(scheduler.config.solver_type, alpha[1:][second], decay[second], h_now)
    # D1 = (x0hat_s - x0hat_{s-1}) * h_s / h_{s-1}
    H[second] = -weight * h_now / h_before
    A[second] -= H[second]
    yardstick = (1 - alpha[1:] ** 2) / (1 - alpha[:-1] ** 2) * (1 - (alpha[:-1] / alpha[1:]) ** 2)
    zero = np.zeros_like(A)
    return {
        "A": A,
        "B": sigma[1:] / sigma[:-1],
        "R": zero,
        "H": H,
        "c": zero,
        "sigma": np.append(np.sqrt(np.maximum(yardstick, 0.0)), 0.0),
        **_conversion(scheduler, alpha[:-1], sigma[:-1]),
    }


def _history_weight(solver_type: str, alpha: Array, decay: Array, h: Array) -> Array:
    """Factor of D1 in the second-order update (Lu et al. 2022, midpoint and Heun forms)."""
    if solver_type == "midpoint":
        return -0.5 * alpha * decay
    return alpha * (decay / h + 1)


def _second_order_steps(scheduler: DPMSolverMultistepScheduler, n: int) -> NDArray[np.bool_]:
    """(n,) bool: the first step has no history, the last may be lowered for stability."""
    config = scheduler.config
    second = np.full(n, config.solver_order == 2)
    second[0] = False
    euler_last = config.euler_at_final or config.final_sigmas_type == "zero"
    if euler_last or (config.lower_order_final and n < 15):
        second[-1] = False
    return second


@dataclass(frozen=True)
class _AlphaBar:
    now: Array
    next: Array


def _alpha_bar(
    scheduler: DDPMScheduler | DDIMScheduler, t: Array, t_next: Array, final: float
) -> _AlphaBar:
    alpha_bar = scheduler.alphas_cumprod.cpu().numpy().astype(np.float64)
    return _AlphaBar(alpha_bar[t], np.where(t_next >= 0, alpha_bar[np.maximum(t_next, 0)], final))


def _conversion(scheduler: Scheduler, alpha: Array, sigma: Array) -> Table:
    """Coefficients of x0raw for x = alpha x0 + sigma eps."""
    if scheduler.config.prediction_type == "sample":
        return {"x0_from_x": np.zeros_like(alpha), "x0_from_output": np.ones_like(alpha)}
    if scheduler.config.prediction_type == "v_prediction":
        return {"x0_from_x": alpha.copy(), "x0_from_output": -sigma}
    with np.errstate(divide="ignore"):
        return {"x0_from_x": 1 / alpha, "x0_from_output": -sigma / alpha}
