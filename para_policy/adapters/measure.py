"""Calibration of a live policy object: the part of `para-policy calibrate` that `chord` needs.

Seconds on a GPU, up to a minute on a small CPU. Only `chord` is measured, on fewer samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.plan import MEASURED
from para_policy.adapters.solve import Mixed
from para_policy.calibration import Calibration, assess, chord_matrices, fit_linear_guess, fit_nodes
from para_policy.checkpoints.calibration import FOLDER, read_calibrations
from para_policy.checkpoints.files import read_tensors
from para_policy.diffusion.denoiser import Denoiser
from para_policy.diffusion.noise import Noise
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers import Sequential

JACOBIANS = 12
"""Conditions that the mean Jacobian is taken over; more gain nothing."""

_CASES = 64
_FIRST_SEED = 2**41


@torch.no_grad()
def measure(
    network: Callable[..., Tensor],
    calls: Sequence[Call],
    process: Process,
    scheduler: str,
    tolerance: float,
) -> Calibration:
    """Measure `chord` and `collocation` for one process.

    Args:
        network: `network(x, t, condition)`.
        calls: at least one; their conditions are used with several noises each.
        scheduler: kind of the process, as in `Calibration`.
        tolerance: of these, normalised action units.

    Raises:
        InputError: if there is nothing that the network is conditioned on.
    """
    conditions = _conditions(calls)
    mixed = Mixed.here(network, calls[0].dtype, calls[0].device)
    order = torch.randperm(len(conditions), generator=torch.Generator().manual_seed(0))
    condition = conditions[order[torch.arange(_CASES) % len(conditions)]]
    noise = Noise.from_seeds(
        range(_FIRST_SEED, _FIRST_SEED + _CASES),
        calls[0].shape[1:],
        process.num_steps,
        device=conditions.device,
        dtype=mixed.solve_dtype,
    )
    denoiser = Denoiser(mixed, condition)
    reference = Sequential()(denoiser, process, noise)
    guess = fit_linear_guess(condition, reference.sample)
    matrices, spread = chord_matrices(
        denoiser, process, noise.select(range(JACOBIANS)), reference.trajectory[:JACOBIANS]
    )
    measured = Calibration(
        scheduler=scheduler,
        steps=process.num_steps,
        tolerance=tolerance,
        cases=_CASES,
        matrices=matrices,
        guess=guess,
        nodes=fit_nodes(
            process, [noise], [reference.trajectory], guess(condition), matrices, spread
        ),
        variants=(assess("sequential", {}, [reference], [reference]),),
        fingerprint=process.fingerprint,
    )
    options = {"tolerance": tolerance}
    trials = {name: measured.sampler(name, options)(denoiser, process, noise) for name in MEASURED}
    variants = [assess(name, options, [trial], [reference]) for name, trial in trials.items()]
    return dataclasses.replace(measured, variants=(*measured.variants, *variants))


def _conditions(calls: Sequence[Call]) -> Tensor:
    given = [call.condition for call in calls if call.condition is not None]
    if not given:
        raise InputError("this policy's network has no condition; use sampler 'x0'")
    conditions = torch.cat(given)
    if not conditions.isfinite().all():
        raise InputError(
            "observations give conditions that hold NaN or infinity; check the recording, and that it "
            "is normalised as the policy expects"
        )
    return conditions


def read(
    directory: str | Path, bound_to: str, schedule: Mapping[str, Any], kind: str, steps: int
) -> Calibration | None:
    """The calibration of one process in a directory; None if there is no file for it.

    Raises:
        CheckpointError: if it is broken, or was measured with other weights or another schedule.
    """
    path = Path(directory) / FOLDER / f"{kind}_{steps}.safetensors"
    if not path.is_file():
        return None
    # The sizes are those of the file: weights with the same hash have the same sizes.
    guess = read_tensors(path).get("guess.weight")
    rows, columns = (0, 0) if guess is None or guess.ndim != 2 else guess.shape
    return read_calibrations(directory, bound_to, schedule, rows, columns)[kind, steps]


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of all weights with their names, whether compiled or not, on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        stored = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        label = [name.replace("_orig_mod.", ""), str(value.dtype), list(value.shape)]
        digest.update(json.dumps(label).encode() + stored.numpy().tobytes())
    return digest.hexdigest()
