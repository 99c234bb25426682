"""From the name of a sampler to a sampler, with what was measured and trained for a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from para_policy import samplers
from para_policy.errors import InputError
from para_policy.samplers import Sampler

if TYPE_CHECKING:
    from para_policy.policies.diffusion_policy import DiffusionPolicy


def make_sampler(
    policy: DiffusionPolicy,
    name: str,
    scheduler: str | None,
    steps: int | None,
    options: Mapping[str, Any],
    *,
    anytime: bool,
) -> Sampler:
    """See `DiffusionPolicy.sampler`; `anytime` if solves may be cut off by a deadline."""
    kind, count = policy.process_key(scheduler, steps)
    calibration = policy.calibrations.get((kind, count))
    if name == "pcm" and "consistency" not in options:
        options = {**_trained(policy, kind, count, options), **options}
    if calibration is not None:
        if name == "auto":
            latency = policy.latency(calibration.steps)
            variant = calibration.fastest(latency, anytime=anytime)
            name, options = variant.sampler, {**variant.options, **options}
        return calibration.sampler(name, options)
    if name == "auto" or _lacks_matrices(name, options):
        available = ", ".join(f"{k} {n}" for k, n in policy.calibrations) or "none"
        raise InputError(
            f"sampler {name!r} needs a calibration for {kind} with {count} steps "
            f"(there: {available}); run para-policy calibrate --checkpoint DIR "
            f"--scheduler {kind} --steps {count}"
        )
    return samplers.get(name, **options)


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
    consistency = model.on(policy.network, policy.num_train_timesteps)
    return {"consistency": consistency, "stride": model.stride}


def _lacks_matrices(name: str, options: Mapping[str, Any]) -> bool:
    takes_them = "matrices" in samplers.options(name)
    return takes_them and options.get("splitting", "chord") == "chord" and "matrices" not in options
