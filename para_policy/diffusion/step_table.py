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

from para_policy.diffusion.absurd import warn_of_absurd
from para_policy.diffusion.flow import flow_columns, path
from para_policy.diffusion.schedulers import Scheduler, kind_of, own_options, prepare
from para_policy.errors import InputError

Array = NDArray[np.float64]
Columns = dict[str, Array]


@dataclass(frozen=True)
class StepTable:
    """Everything that `Process` needs of a scheduler.

    Attributes:
        kind: "ddpm", "ddim", "dpmsolver++" or "flow_match_euler".
        timesteps: (N,), floating point for a flow.
        clip: bound on |x0hat|, or None.
        columns: coefficients of the recurrence by name, (N,) each, states (N + 1,).
    """

    kind: str
    timesteps: NDArray[np.int64] | Array
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
    if kind == "ddpm":
        columns = _ddpm(scheduler)
    elif kind == "ddim":
        columns = _ddim(scheduler, eta, use_clipped_model_output)
    elif kind == "flow_match_euler":
        columns = flow_columns(
            scheduler.sigmas.numpy(), scheduler.config.velocity, scheduler.config.sigma_min
        )
    else:
        columns = _dpmsolver(scheduler)
    _refuse_infinite(scheduler, columns)
    timesteps = scheduler.timesteps.cpu().numpy()
    if not np.issubdtype(timesteps.dtype, np.floating):
        timesteps = timesteps.astype(np.int64)
    warn_of_absurd(kind, timesteps, columns)
    options = own_options(scheduler)
    clip = float(options["clip_sample_range"]) if options.get("clip_sample", False) else None
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
        **_conversion(scheduler, np.sqrt(abar.now), np.sqrt(1 - abar.now)),
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
        **_conversion(scheduler, np.sqrt(abar.now), np.sqrt(1 - abar.now)),
    }


def _dpmsolver(scheduler: DPMSolverMultistepScheduler) -> Columns:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095): x = alpha x0 + sigma eps, alg. 2."""
    ratio = scheduler.sigmas.cpu().numpy().astype(np.float64)
    alpha = 1 / np.sqrt(ratio**2 + 1)
    sigma = ratio * alpha
    with np.errstate(divide="ignore"):
        log_snr = np.log(alpha) - np.log(sigma)  # lambda
    h = np.diff(log_snr)
    decay = np.exp(-h) - 1
    A = -alpha[1:] * decay  # prop. 4.1 to first order: factor of x0hat
    H = np.zeros_like(A)
    second = _second_order_steps(scheduler, len(A))
    h_before, h_now = h[:-1][second[1:]], h[1:][second[1:]]
    weight = _history_weight(scheduler.config.solver_type, alpha[1:][second], decay[second], h_now)
    # alg. 2, D_i = (1 + 1 / 2r) x0hat_s - (1 / 2r) x0hat_{s-1} with r = h_{s-1} / h_s, split into
    # the share of each prediction.
    with np.errstate(divide="ignore", invalid="ignore"):  # a repeated noise level is refused later
        H[second] = -weight * h_now / h_before
    A[second] -= H[second]
    zero = np.zeros_like(A)
    return {
        "A": A,
        "B": sigma[1:] / sigma[:-1],  # prop. 4.1, factor of x
        "R": zero,
        "H": H,
        "c": zero,
        **path(alpha, sigma),
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


def _variance_preserving(alpha_bar: Array) -> Columns:
    return {"signal": np.sqrt(alpha_bar), "spread": np.sqrt(1 - alpha_bar)}


def _conversion(scheduler: Scheduler, alpha: Array, sigma: Array) -> Columns:
    """Coefficients of x0raw for x = alpha x0 + sigma eps."""
    if scheduler.config.prediction_type == "sample":
        return {"x0_from_x": np.zeros_like(alpha), "x0_from_output": np.ones_like(alpha)}
    if scheduler.config.prediction_type == "v_prediction":
        # Salimans & Ho 2022 (arXiv 2202.00512), appendix D: v = alpha eps - sigma x0.
        return {"x0_from_x": alpha.copy(), "x0_from_output": -sigma}
    # Ho et al. 2020, eq. 4 solved for x0.
    with np.errstate(divide="ignore"):
        return {"x0_from_x": 1 / alpha, "x0_from_output": -sigma / alpha}
