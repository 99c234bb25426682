"""Step tables of exponential integrators: DPM-Solver++(2M), UniPC and DEIS.

On the path x = signal x0 + spread e, with lambda = log(signal / spread) and h = lambda' - lambda, all begin
with the step that is exact for a constant prediction,

    x' = (spread' / spread) x + k x0hat,      k = -signal' (e^-h - 1),

which is DDIM, and correct it by differences of predictions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from para_policy.diffusion.paths import Array, Columns, conversion, path
from para_policy.errors import InputError


def dpmsolver_columns(scheduler: Any) -> Columns:
    """DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), alg. 2."""
    columns, h = _first_order(scheduler)
    signal, A, H = columns["signal"], columns["A"], columns["H"]
    decay = np.exp(-h) - 1
    second = _second_order_steps(scheduler, len(A))
    h_before, h_now = h[:-1][second[1:]], h[1:][second[1:]]
    weight = _history_weight(scheduler.config.solver_type, signal[1:][second], decay[second], h_now)
    # alg. 2, D_i = (1 + 1 / 2r) x0hat_s - (1 / 2r) x0hat_{s-1} with r = h_{s-1} / h_s, split into
    # the share of each prediction.
    with np.errstate(divide="ignore", invalid="ignore"):  # a repeated noise level is refused later
        H[second] = -weight * h_now / h_before
    A[second] -= H[second]
    return columns


def unipc_columns(scheduler: Any) -> Columns:
    """UniPC-1, Zhao et al. 2023 (arXiv 2302.04867), alg. 1 and 2 with B(h).

    The corrector at a step moves its state by g (x0hat_s - x0hat_{s-1}), g = -signal B(h) / 2, *after* the
    network has seen it. So the states of the recurrence are those of the predictor, and the step that
    follows takes the correction along.
    """
    columns, h = _first_order(scheduler)
    if scheduler.config.solver_type == "bh1" and not np.isfinite(h).all():
        raise InputError(
            "UniPCMultistepScheduler with solver_type='bh1' divides by zero in its last step where "
            "final_sigmas_type='zero'; use solver_type='bh2' or final_sigmas_type='sigma_min'"
        )
    at_state = h[:-1]  # of the step that has made it
    size = at_state if scheduler.config.solver_type == "bh1" else -np.expm1(-at_state)
    g = np.append(0.0, columns["signal"][1:-1] * size / 2)
    left_out = [s + 1 for s in scheduler.disable_corrector if 0 <= s < len(g) - 1]
    g[left_out] = 0.0
    taken_along = columns["B"] * g
    columns["A"] += taken_along
    columns["H"] -= taken_along
    return columns


def deis_columns(scheduler: Any) -> Columns:
    """DEIS of order 1, Zhang & Chen 2023 (arXiv 2204.13902), eq. 14 with a constant prediction."""
    return _first_order(scheduler)[0]


def _first_order(scheduler: Any) -> tuple[Columns, Array]:
    """The columns without history, and h (N,), which is infinite where no noise is left."""
    level = scheduler.sigmas.cpu().numpy().astype(np.float64)
    if scheduler.config.use_flow_sigmas:
        signal, spread = 1 - level, level
        if not (signal > 0).all():
            raise InputError(
                f"{type(scheduler).__name__} with use_flow_sigmas has noise levels up to "
                f"{level.max():g}; expected them below 1: leave use_karras_sigmas and its relatives off"
            )
    else:  # here a level is spread / signal
        signal = 1 / np.sqrt(level**2 + 1)
        spread = level * signal
    with np.errstate(divide="ignore"):
        h = np.diff(np.log(signal) - np.log(spread))
    zero = np.zeros(len(h))
    columns = {
        "A": -signal[1:] * np.expm1(-h),
        "B": spread[1:] / spread[:-1],
        "R": zero,
        "H": zero.copy(),
        "c": zero,
        **path(signal, spread),
        **conversion(scheduler.config.prediction_type, signal[:-1], spread[:-1]),
    }
    return columns, h


def _history_weight(solver_type: str, signal: Array, decay: Array, h: Array) -> Array:
    """Factor of D1 in the second-order update (Lu et al. 2022, midpoint and Heun forms)."""
    if solver_type == "midpoint":
        return -0.5 * signal * decay
    with np.errstate(invalid="ignore"):
        return signal * (decay / h + 1)


def _second_order_steps(scheduler: Any, n: int) -> NDArray[np.bool_]:
    """(n,) bool: the first step has no history, the last may be lowered for stability."""
    config = scheduler.config
    second = np.full(n, config.solver_order == 2)
    second[0] = False
    euler_last = config.euler_at_final or config.final_sigmas_type == "zero"
    if euler_last or (config.lower_order_final and n < 15):
        second[-1] = False
    return second
