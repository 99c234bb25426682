"""Paths x = signal x0 + spread e, and the columns of a step table that follow from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = dict[str, Array]


def path(signal: Array, spread: Array) -> Columns:
    """The path itself (N + 1,), and the yardstick `sigma`.

    The latter is the standard deviation of the cleaner state given the noisier one and x0, for
    whatever path; for a variance-preserving one it is that of DDPM (Ho et al. 2020, eq. 7).
    """
    now, after = spread[:-1], spread[1:]
    kept = np.divide(signal[:-1], signal[1:], out=np.ones_like(now), where=signal[1:] > 0)
    fresh = now**2 - (kept * after) ** 2
    yardstick = np.append(after / now * np.sqrt(np.maximum(fresh, 0.0)), 0.0)
    return {"sigma": yardstick, "signal": signal, "spread": spread}


def conversion(prediction: str, signal: Array, spread: Array) -> Columns:
    """Coefficients of x0raw where the network predicts `prediction` at states of (N,) `signal` and
    `spread`."""
    if prediction == "sample":
        return {"x0_from_x": np.zeros_like(signal), "x0_from_output": np.ones_like(signal)}
    if prediction == "v_prediction":
        # Salimans & Ho 2022 (arXiv 2202.00512), appendix D: v = alpha eps - sigma x0.
        return {"x0_from_x": signal.copy(), "x0_from_output": -spread}
    if prediction == "flow_prediction":
        return {"x0_from_x": np.ones_like(signal), "x0_from_output": -spread}
    # Ho et al. 2020, eq. 4 solved for x0.
    with np.errstate(divide="ignore"):
        return {"x0_from_x": 1 / signal, "x0_from_output": -spread / signal}
