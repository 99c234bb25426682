"""Coefficients of every step of a diffusers scheduler.

The recurrence that they belong to is described in `para_policy.diffusion.process`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from numpy.typing import NDArray

from para_policy.diffusion.schedulers import Scheduler, prepare
from para_policy.errors import InputError

Array = NDArray[np.float64]
Table = dict[str, Array]


def step_table(
    scheduler: Scheduler | Mapping[str, Any],
    num_steps: int | None,
    eta: float,
    use_clipped_model_output: bool,
) -> tuple[NDArray[np.int64], float | None, Table]:
    """Return timesteps (N,), the clip bound, and every coefficient of the recurrence, (N,) each.

    Arguments and errors are those of `Process.from_scheduler`.
    """
    scheduler = prepare(scheduler, num_steps, eta)
    if use_clipped_model_output and not isinstance(scheduler, DDIMScheduler):
        raise InputError(
            f"use_clipped_model_output is an option of DDIM, not of {type(scheduler).__name__}"
        )
    if isinstance(scheduler, DDPMScheduler):
        table = _ddpm_table(scheduler)
    elif isinstance(scheduler, DDIMScheduler):
        table = _ddim_table(scheduler, eta, use_clipped_model_output)
    else:
        table = _dpmsolver_table(scheduler)
    broken = [name for name, values in table.items() if not np.isfinite(values).all()]
    if broken:
        if isinstance(scheduler, DPMSolverMultistepScheduler) and _repeats_a_level(scheduler):
            raise InputError(
                f"num_steps is {len(scheduler.timesteps)}, which makes {type(scheduler).__name__} "
                "repeat a noise level; use fewer steps, or another timestep_spacing"
            )
        raise InputError(
            f"this schedule gives infinite coefficients {broken}: alpha_bar reaches 0 "
            "(rescale_betas_zero_snr needs v_prediction or sample prediction)"
        )
    config: Any = scheduler.config
    clip = float(config.clip_sample_range) if config.get("clip_sample", False) else None
    return scheduler.timesteps.cpu().numpy().astype(np.int64), clip, table


def _repeats_a_level(scheduler: DPMSolverMultistepScheduler) -> bool:
    return bool((np.diff(scheduler.sigmas.cpu().numpy()) == 0).any())


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
        "alpha_bar": np.append(abar.now, abar.next[-1]),
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
        "alpha_bar": np.append(abar.now, abar.next[-1]),
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
    with np.errstate(divide="ignore", invalid="ignore"):  # a repeated noise level is refused later
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
        "alpha_bar": alpha**2,
        **_conversion(scheduler, alpha[:-1], sigma[:-1]),
    }


def _history_weight(solver_type: str, alpha: Array, decay: Array, h: Array) -> Array:
    """Factor of D1 in the second-order update (Lu et al. 2022, midpoint and Heun forms)."""
    if solver_type == "midpoint":
        return -0.5 * alpha * decay
    with np.errstate(invalid="ignore"):
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
