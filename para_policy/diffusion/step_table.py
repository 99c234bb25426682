"""Coefficients of every step of a diffusers scheduler.

The recurrence that they belong to is described in `para_policy.diffusion.process`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from numpy.typing import NDArray

from para_policy.diffusion.absurd import warn_of_absurd
from para_policy.diffusion.exponential import deis_columns, dpmsolver_columns, unipc_columns
from para_policy.diffusion.flow import (
    flow_columns,
    flow_match_euler_columns,
    flow_match_heun_columns,
)
from para_policy.diffusion.flow_matching import FlowMatching
from para_policy.diffusion.paths import Array, Columns, conversion
from para_policy.diffusion.preparation import prepare
from para_policy.diffusion.schedulers import Scheduler, kind_of, own_options
from para_policy.errors import InputError


@dataclass(frozen=True)
class StepTable:
    """Everything that `Process` needs of a scheduler.

    Attributes:
        kind: as in `SCHEDULERS`.
        timesteps: (N,) int64, or float64 where time is continuous.
        clip: bound on |x0hat|, or None.
        columns: coefficients of the recurrence by name, (N,) each, states (N + 1,).
    """

    kind: str
    timesteps: NDArray[Any]
    clip: float | None
    columns: Columns


def step_table(
    scheduler: Scheduler | Mapping[str, Any],
    num_steps: int | None,
    eta: float,
    use_clipped_model_output: bool,
) -> StepTable:
    """The table of a scheduler; arguments and errors are those of `Process.from_scheduler`."""
    scheduler = prepare(scheduler, num_steps, eta)
    kind = kind_of(scheduler)
    if use_clipped_model_output and kind != "ddim":
        raise InputError(
            f"use_clipped_model_output is an option of DDIM, not of {type(scheduler).__name__}"
        )
    if kind == "ddim":
        columns = _ddim(scheduler, eta, use_clipped_model_output)
    elif isinstance(scheduler, FlowMatching):
        options = scheduler.config
        columns = flow_columns(scheduler.sigmas.numpy(), options.velocity, options.sigma_min)
    else:
        columns = _COLUMNS[kind](scheduler)
    _refuse_infinite(scheduler, columns)
    timesteps = scheduler.timesteps.cpu().numpy()
    timesteps = timesteps.astype(np.float64 if timesteps.dtype.kind == "f" else np.int64)
    options = own_options(scheduler)
    clip = float(options["clip_sample_range"]) if options.get("clip_sample", False) else None
    warn_of_absurd(kind, timesteps, clip, columns)
    return StepTable(kind, timesteps, clip, columns)


def _refuse_infinite(scheduler: Scheduler, columns: Columns) -> None:
    broken = [name for name, values in columns.items() if not np.isfinite(values).all()]
    if not broken:
        return
    if isinstance(scheduler, DPMSolverMultistepScheduler) and _repeats_a_level(scheduler):
        raise InputError(
            f"num_steps is {len(scheduler.timesteps)}, which makes {type(scheduler).__name__} "
            "repeat a noise level; use fewer steps, or another timestep_spacing"
        )
    raise InputError(
        f"this schedule gives infinite coefficients {broken}: alpha_bar reaches 0 "
        "(rescale_betas_zero_snr needs v_prediction or sample prediction)"
    )


def _repeats_a_level(scheduler: DPMSolverMultistepScheduler) -> bool:
    return bool((np.diff(scheduler.sigmas.cpu().numpy()) == 0).any())


def _ddpm(scheduler: DDPMScheduler) -> Columns:
    """Ho et al. 2020 (arXiv 2006.11239), with t the timestep of a step and t' of the next one."""
    t = scheduler.timesteps.cpu().numpy()
    # Ask the scheduler itself: its rule depends on whether the timesteps are custom.
    t_next = np.array([int(scheduler.previous_timestep(int(step))) for step in t])
    abar = _alpha_bar(scheduler, t, t_next, final=1.0)
    alpha = abar.now / abar.next  # alpha_t; alpha_bar is its product, between eq. 3 and 4
    beta = 1 - alpha
    variance = np.maximum((1 - abar.next) / (1 - abar.now) * beta, 1e-20)  # eq. 7, beta tilde
    if scheduler.config.variance_type == "fixed_large":
        variance = beta  # section 3.2, sigma^2 = beta_t
    std = np.sqrt(variance)
    zero = np.zeros_like(std)
    return {
        "A": np.sqrt(abar.next) * beta / (1 - abar.now),  # eq. 7, factor of x0
        "B": np.sqrt(alpha) * (1 - abar.next) / (1 - abar.now),  # eq. 7, factor of x_t
        "R": zero,
        "H": zero,
        "c": np.where(t > 0, std, 0.0),  # alg. 2, line 3: no noise in the last step
        "sigma": np.append(std, 0.0),
        **_variance_preserving(np.append(abar.now, abar.next[-1])),
        **_conversion(scheduler, abar.now),
    }


def _ddim(scheduler: DDIMScheduler, eta: float, use_clipped: bool) -> Columns:
    """Song et al. 2021 (arXiv 2010.02502); its alpha is the alpha_bar here."""
    t = scheduler.timesteps.cpu().numpy()
    # DDIMScheduler steps by a fixed stride whatever the spacing; parity with it is the contract.
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    abar = _alpha_bar(scheduler, t, t - stride, final=float(scheduler.final_alpha_cumprod))
    variance = (1 - abar.next) / (1 - abar.now) * (1 - abar.now / abar.next)  # eq. 16, eta = 1
    std = np.sqrt(np.maximum(variance, 0.0))
    c = eta * std  # eq. 16
    # eq. 12, "direction pointing to x_t": sqrt(1 - abar' - sigma^2) eps, with eps written as
    # (x_t - sqrt(abar) x0raw) / sqrt(1 - abar).
    direction = np.sqrt(np.maximum(1 - abar.next - c**2, 0.0)) / np.sqrt(1 - abar.now)
    along_x0 = -direction * np.sqrt(abar.now)
    zero = np.zeros_like(std)
    return {
        # eq. 12, "predicted x0": sqrt(abar') x0hat
        "A": np.sqrt(abar.next) + (along_x0 if use_clipped else zero),
        "B": direction,
        "R": zero if use_clipped else along_x0,
        "H": zero,
        "c": c,
        "sigma": np.append(std, 0.0),
        **_variance_preserving(np.append(abar.now, abar.next[-1])),
        **_conversion(scheduler, abar.now),
    }


@dataclass(frozen=True)
class _AlphaBar:
    now: Array
    next: Array


def _alpha_bar(
    scheduler: DDPMScheduler | DDIMScheduler, t: Array, t_next: Array, final: float
) -> _AlphaBar:
    alpha_bar = scheduler.alphas_cumprod.cpu().numpy().astype(np.float64)
    return _AlphaBar(alpha_bar[t], np.where(t_next >= 0, alpha_bar[np.maximum(t_next, 0)], final))


def _variance_preserving(alpha_bar: Array) -> Columns:
    return {"signal": np.sqrt(alpha_bar), "spread": np.sqrt(1 - alpha_bar)}


def _conversion(scheduler: Scheduler, alpha_bar: Array) -> Columns:
    prediction = scheduler.config.prediction_type
    return conversion(prediction, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))


_COLUMNS: dict[str, Callable[[Any], Columns]] = {
    "ddpm": _ddpm,
    "dpmsolver++": dpmsolver_columns,
    "unipc": unipc_columns,
    "deis": deis_columns,
    "flow_match_euler": flow_match_euler_columns,
    "flow_match_heun": flow_match_heun_columns,
}
