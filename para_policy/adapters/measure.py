"""Calibration of a live policy object: the part of `para-policy calibrate` that `chord` needs.

Seconds on a GPU, up to a minute on a small CPU. Only `chord` is measured, on fewer samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from para_policy.adapters.call import Call
from para_policy.adapters.conventions import Convention
from para_policy.adapters.plan import MEASURED, Plan
from para_policy.adapters.solve import Mixed
from para_policy.calibration import Calibration, assess, chord_matrices, fit_linear_guess, fit_nodes
from para_policy.checkpoints.calibration import file_of, read_calibrations, save_calibration
from para_policy.checkpoints.files import read_tensors, weights_sha256
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


def read(directory: str | Path, convention: Convention, plan: Plan) -> Calibration | None:
    """The calibration of one process in a directory; None if there is no file for it.

    Raises:
        CheckpointError: if it is broken, or was measured with other weights or another schedule.
    """
    kind, steps = plan.key
    path = file_of(directory, kind, steps)
    if not path.is_file():
        return None

    def measured(bound_to: str) -> bool:
        now = weights_sha256(convention.weights())
        return bound_to == now or bound_to == _former_hash(convention.owner)

    # The sizes are those of the file: weights with the same hash have the same sizes.
    guess = read_tensors(path).get("guess.weight")
    rows, columns = (0, 0) if guess is None or guess.ndim != 2 else guess.shape
    return read_calibrations(directory, measured, plan.schedule, rows, columns)[kind, steps]


def save(directory: str | Path, convention: Convention, plan: Plan, measured: Calibration) -> None:
    """Write what `read` finds again, and `load_policy` beside the same weights."""
    save_calibration(directory, measured, weights_sha256(convention.weights()), plan.schedule)


def _former_hash(module: Any) -> str:
    """Of a policy's weights, as files of earlier releases hold it."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        stored = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        label = [name.replace("_orig_mod.", ""), str(value.dtype), list(value.shape)]
        digest.update(json.dumps(label).encode() + stored.numpy().tobytes())
    return digest.hexdigest()
