"""Calibration: what is measured once per checkpoint, scheduler and step count, and needs no training.

- `jacobian`: the mean Jacobian of each step, which makes the chord method converge in a few rounds,
- `nodes`: the steps that `collocation` asks the network about,
- `linear_guess`: the clean sample from the observation,
- `profile`: for each sampler its work, and how far its answer is from the sequential one,
- `calibration`: all of it for one process, and samplers that use it,
- `measure`: all of it, measured.
"""

from para_policy.calibration.calibration import Calibration
from para_policy.calibration.jacobian import chord_matrices, jacobians, mean_jacobian
from para_policy.calibration.linear_guess import fit_linear_guess
from para_policy.calibration.nodes import fit_nodes
from para_policy.calibration.profile import AfterRound, Variant, Watch, assess
from para_policy.samplers import ERROR_FLOOR, LinearGuess

__all__ = [
    "ERROR_FLOOR",
    "AfterRound",
    "Calibration",
    "LinearGuess",
    "Variant",
    "Watch",
    "assess",
    "chord_matrices",
    "fit_linear_guess",
    "fit_nodes",
    "jacobians",
    "mean_jacobian",
]
