"""What is measured once per checkpoint, scheduler and step count, and needs no training.

- `jacobian`: the mean Jacobian of each step, which makes the chord method converge in a few rounds,
- `linear_guess`: the clean sample from the observation,
- `variants`: for each sampler its work, and how far its answer is from the sequential one,
- `calibrated`: all of it for one process, and samplers that use it.
"""

from para_policy.calibration.calibrated import CalibratedSampler, Calibration
from para_policy.calibration.jacobian import chord_matrices, mean_jacobian
from para_policy.calibration.linear_guess import LinearGuess, fit_linear_guess
from para_policy.calibration.profile import ERROR_FLOOR, AfterRound, Variant, Watch, assess

__all__ = [
    "ERROR_FLOOR",
    "AfterRound",
    "CalibratedSampler",
    "Calibration",
    "LinearGuess",
    "Variant",
    "Watch",
    "assess",
    "chord_matrices",
    "fit_linear_guess",
    "mean_jacobian",
]
