"""Settings of the planner from parameters, at configuration and when parameters change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from para_policy.errors import InputError, ParaPolicyError
from para_policy.planning.fleet import Fleet
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.trained import TrainedScale
from para_policy.ros.messages.settings import settings_text
from para_policy.ros.parameters.policy import (
    FIXED,
    LIVE,
    Values,
    action_coordinates,
    dt_ns,
    present_values,
    sampler_options,
    solve_deadline_s,
)
from para_policy.ros.serving.loading import LoadedPolicy
from para_policy.samplers import Sampler

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.policies import PolicyConfig
    from para_policy.policies.normalizer import LinearNormalizer

_OF_SAMPLER = frozenset({"sampler", "sampler_options", "tolerance"})


def make_settings(loaded: LoadedPolicy, values: Values) -> PlannerSettings:
    """Everything that the planner must know.

    Raises:
        ParaPolicyError: when a parameter does not go together with the policy.
    """
    policy, inputs = loaded.policy, loaded.inputs
    sampler = _sampler(policy, values)
    _check_certificate(sampler, values)
    return PlannerSettings(
        sampler=sampler,
        scheduler=values["scheduler"] or None,
        steps=values["steps"] or None,
        dt_ns=dt_ns(policy.config, values),
        max_age_ns=math.ceil(1e9 * values["max_observation_age_s"]),
        max_ages_ns={n: math.ceil(1e9 * i.max_age_s) for n, i in inputs.items() if i.max_age_s},
        max_unchanged_s={n: i.max_unchanged_s for n, i in inputs.items() if i.max_unchanged_s},
        linear=frozenset(n for n, i in inputs.items() if i.interpolation == "linear"),
        max_future_ns=round(1e9 * values["max_future_s"]),
        spacing_tolerance=values["spacing_tolerance"],
        max_unconverged=values["max_unconverged"],
        max_residual=values["max_residual"],
        max_error=values["max_error"],
        parts={n: {p: inputs.shapes[p][0] for p in parts} for n, parts in inputs.parts.items()},
        coordinates={n: i.coordinates_of(inputs.shapes[n]) for n, i in inputs.items()},
        trained=trained_scales(policy.config, policy.normalizers),
        action_coordinates=action_coordinates(policy.config, values),
        sampler_name=values["sampler"],
        anytime=sampler.stops_early,
        deadline_s=values["deadline_ms"] / 1e3,
        max_overruns=values["max_overruns"],
        n_action_steps=_n_action_steps(policy.config, values),
        warm_start=values["warm_start"],
        shift_noise=values["shift_noise"],
        real_time_chunking=values["real_time_chunking"],
        offset_ns=round(1e9 * values["latency_offset_s"]),
        replan_steps=_replan_steps(policy.config, values),
        added_latency_s=values["added_latency_ms"] / 1e3,
        lockstep=values["lockstep"],
        message=_message(loaded, values),
    )


def trained_scales(
    config: PolicyConfig, normalizers: Mapping[str, LinearNormalizer]
) -> dict[str, TrainedScale]:
    """How the policy knows its inputs; without cameras, whose pixels are always of one scale."""
    return {
        name: TrainedScale(
            normalizers[name].scale.cpu().numpy(), normalizers[name].offset.cpu().numpy()
        )
        for name in config.inputs
        if name not in config.cameras
    }


def unmixed(settings: PlannerSettings, config: PolicyConfig) -> list[str]:
    """What to tell a person about coordinates that are to be mixed, but cannot be."""
    found, shapes = [], settings.streams(config.inputs)
    for name in sorted(settings.linear):
        untold = settings.coordinates[name].untold(math.prod(shapes[name]))
        if untold:
            found.append(
                f"values {untold} of input {name} are not interpolated, as they may be angles or "
                "rotations; give its coordinates in the inputs file, such as ['number 0-5']"
            )
    untold = settings.action_coordinates.untold(config.action_dim)
    if settings.real_time_chunking == "soft" and untold:
        found.append(
            f"coordinates {untold} of the action are chunked as with real_time_chunking 'hard', as "
            "they may be angles or rotations; set parameter coordinates, such as ['number 0-5']"
        )
    return found


def change_settings(
    loaded: LoadedPolicy, settings: PlannerSettings, values: Values, changed: frozenset[str]
) -> PlannerSettings:
    """`settings` with the parameters in `changed`, which may change at run time, as in `values`.

    The sampler stays the same object unless it has to be made anew.

    Raises:
        ParaPolicyError: as `make_settings`.
    """
    policy = loaded.policy
    of_sampler = _OF_SAMPLER | {"deadline_ms"} if values["sampler"] == "auto" else _OF_SAMPLER
    sampler = _sampler(policy, values) if changed & of_sampler else settings.sampler
    _check_certificate(sampler, values)
    return replace(
        settings,
        sampler=sampler,
        sampler_name=values["sampler"],
        anytime=sampler.stops_early,
        dt_ns=dt_ns(policy.config, values),
        deadline_s=values["deadline_ms"] / 1e3,
        n_action_steps=_n_action_steps(policy.config, values),
        replan_steps=_replan_steps(policy.config, values),
        message=_message(loaded, values),
    )


def change_parameters(
    node: Node, loaded: LoadedPolicy, fleet: Fleet, parameters: Sequence[Any]
) -> SetParametersResult:
    """Take over all of `parameters`, from the next chunk on, or refuse all and say why.

    ROS has checked types and ranges already. Parameters that are not ours are left to others.
    """
    changes = {parameter.name: parameter.value for parameter in parameters}
    fixed = sorted(FIXED & changes.keys())
    if fixed:
        reason = f"{', '.join(fixed)} cannot change now; deactivate and cleanup the node first"
        return SetParametersResult(successful=False, reason=reason)
    changed = LIVE & changes.keys() - {"seed"}  # which counts from the next reset on
    if not changed:
        return SetParametersResult(successful=True)
    try:
        values = present_values(node, {name: changes[name] for name in changed})
        _check_rate(loaded, values)
        fleet.change(change_settings(loaded, fleet.settings, values, frozenset(changed)))
    except ParaPolicyError as error:
        return SetParametersResult(successful=False, reason=str(error))
    except Exception as error:  # options in YAML reach code that does not expect every type
        return SetParametersResult(successful=False, reason=f"not usable: {error!r}")
    return SetParametersResult(successful=True)


def _check_rate(loaded: LoadedPolicy, values: Values) -> None:
    """A slip of the finger in a rate multiplies the speed of the robot."""
    rate_hz, highest_hz = values["control_rate_hz"], loaded.max_rate_hz
    if rate_hz > highest_hz and not values["force_control_rate"]:
        raise InputError(
            f"parameter control_rate_hz is {rate_hz:g}; the policy was trained or configured for "
            f"{highest_hz:g}, and the robot would move {rate_hz / highest_hz:.3g} times as fast: expected "
            f"at most {highest_hz:g}, or force_control_rate: true with it"
        )


def _sampler(policy: DiffusionPolicy, values: Values) -> Sampler:
    scheduler, steps = values["scheduler"] or None, values["steps"] or None
    chain, deadline_s = policy.chain(scheduler, steps), solve_deadline_s(values)
    return chain.sampler(values["sampler"], deadline_s=deadline_s, **sampler_options(values))


def _check_certificate(sampler: Sampler, values: Values) -> None:
    if values["max_error"] and sampler.certificate is None:
        raise InputError(
            f"max_error is {values['max_error']:g} and sampler '{values['sampler']}' knows no error "
            "bound: run `para-policy calibrate`, use a calibrated sampler such as chord, or "
            "max_residual"
        )


def _n_action_steps(config: PolicyConfig, values: Values) -> int:
    wanted, available = int(values["n_action_steps"]), config.horizon - config.first_action
    if wanted > available:
        raise InputError(
            f"parameter n_action_steps is {wanted}; the policy predicts {available} actions from "
            f"the newest observation on: expected 1 to {available}, or 0 for the checkpoint's number"
        )
    return wanted


def _replan_steps(config: PolicyConfig, values: Values) -> int:
    wanted = int(values["replan_steps"])
    actions = int(values["n_action_steps"]) or config.n_action_steps
    if wanted > actions:
        raise InputError(
            f"parameter replan_steps is {wanted}; a chunk has {actions} actions, and the next one is "
            f"planned when they run out: expected 1 to {actions}, or 0 for this"
        )
    return wanted


def _message(loaded: LoadedPolicy, values: Values) -> str:
    return settings_text(
        loaded.policy,
        values,
        loaded.inputs.forms,
        loaded.weights_sha256,
        topics=loaded.topics,
        dt_ns=dt_ns(loaded.policy.config, values),
        deadline_s=solve_deadline_s(values),
        options=sampler_options(values),
    )
