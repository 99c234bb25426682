"""From the name of a sampler to a sampler, with what was measured and trained for a policy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from para_policy import samplers
from para_policy.calibration import CalibratedSampler
from para_policy.diffusion.process import Process
from para_policy.errors import InputError
from para_policy.samplers import Sampler
from para_policy.samplers.acceptance import DefectBelow, DefectBelowEither

if TYPE_CHECKING:
    from para_policy.policies.policy import DiffusionPolicy

_FAR_ABOVE_ROUNDING = 1e-3
"""Normalised action units: float32 networks round far below, which need not be measured."""


def choose(
    policy: DiffusionPolicy,
    name: str,
    scheduler: str | None,
    steps: int | None,
    deadline_s: float | None = None,
) -> tuple[str, Mapping[str, Any]]:
    """A sampler's name, and options that calibration has chosen: what "auto" stands for on this device.

    Args:
        deadline_s: solves may be cut off then.
    """
    calibration = policy.calibrations.get(policy.process_key(scheduler, steps))
    if name != "auto" or calibration is None:
        return name, {}
    variant = calibration.fastest(policy.latency(calibration.steps), deadline_s=deadline_s)
    return variant.sampler, variant.options


def make_sampler(
    policy: DiffusionPolicy,
    name: str,
    scheduler: str | None,
    steps: int | None,
    options: Mapping[str, Any],
    *,
    deadline_s: float | None = None,
) -> Sampler:
    """See `DiffusionPolicy.sampler` and `choose`."""
    name, chosen = choose(policy, name, scheduler, steps, deadline_s)
    options = {**chosen, **options}
    kind, count = policy.process_key(scheduler, steps)
    calibration = policy.calibrations.get((kind, count))
    if name == "pcm" and "consistency" not in options:
        options = {**_trained(policy, kind, count, options), **options}
    if calibration is None and (name == "auto" or _lacks_matrices(name, options)):
        available = ", ".join(f"{k} {n}" for k, n in policy.calibrations) or "none"
        raise InputError(
            f"sampler {name!r} needs a calibration for {kind} with {count} steps "
            f"(there: {available}); run para-policy calibrate --checkpoint DIR "
            f"--scheduler {kind} --steps {count}"
        )

    def make(**given: Any) -> Sampler:
        if calibration is None:
            return samplers.get(name, **given)
        return calibration.sampler(name, given)

    made = make(**options)
    least = _least_tolerance(policy, policy.process(scheduler, steps), made)
    return made if least is None else make(**{**options, "tolerance": least})


def _least_tolerance(policy: DiffusionPolicy, process: Process, made: Sampler) -> float | None:
    """What the tolerance must be raised to: no defect falls below the rounding of the network.

    None where it may stay. A tolerance of 0 means equal floats, which rounding does not hinder as
    long as all calls have the same size.
    """
    bare = made.sampler if isinstance(made, CalibratedSampler) else made
    acceptance = getattr(bare, "acceptance", None)
    if isinstance(acceptance, DefectBelow):
        tolerance = acceptance.tolerance
    elif isinstance(acceptance, DefectBelowEither):
        tolerance = acceptance.absolute
    else:
        return None
    exact = policy.engine.config.precision == "float32"
    if tolerance == 0 or (exact and tolerance >= _FAR_ABOVE_ROUNDING):
        return None
    floor = policy.noise_floor(process)
    if tolerance >= floor:
        return None
    warnings.warn(
        f"tolerance is {tolerance:.1e}; rounding of the network ({policy.device_key}) changes a step "
        f"by up to {floor:.1e}, so that is used instead",
        stacklevel=3,
    )
    return floor


def _trained(
    policy: DiffusionPolicy, kind: str, count: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What `pcm` takes from training: the network, and how it was trained to be used."""
    splitting = options.get("splitting", "chord")
    if (kind, count, splitting) not in policy.consistency_models:
        available = ", ".join(f"{k} {n} {s}" for k, n, s in policy.consistency_models) or "none"
        raise InputError(
            f"sampler 'pcm' was not trained for {kind} with {count} steps and splitting "
            f"{splitting!r} (there: {available}); run para-policy distill"
        )
    model = policy.consistency_models[kind, count, splitting]
    engine = policy.engine_in_use
    consistency = model.on(policy.network, policy.num_train_timesteps, engine)
    return {"consistency": consistency, "stride": model.stride}


def _lacks_matrices(name: str, options: Mapping[str, Any]) -> bool:
    takes_them = "matrices" in samplers.options(name)
    return takes_them and options.get("splitting", "chord") == "chord" and "matrices" not in options
