"""From the values of policy_node's parameters to a planner and its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import yaml

from para_policy.calibration import CalibratedSampler
from para_policy.checkpoints.load import make_policy, read_checkpoint, resolve
from para_policy.errors import InputError
from para_policy.planning.settings import PlannerSettings
from para_policy.policies.sampler_making import make_sampler
from para_policy.ros.messages.inputs import InputMapping, load_inputs
from para_policy.ros.messages.markers import check_axes
from para_policy.ros.messages.settings import settings_text
from para_policy.ros.parameters.policy import dt_ns, solve_deadline_s
from para_policy.ros.serving.interface import ChunkFormat
from para_policy.samplers import Asd, Sampler, Sequential

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.policies import PolicyConfig

Values = Mapping[str, Any]
"""Values of parameters by name."""
_OF_SAMPLER = frozenset({"sampler", "sampler_options", "tolerance"})


@dataclass(frozen=True)
class Loaded:
    """A policy and what feeds it.

    Attributes:
        weights_sha256: of the file that the weights came from.
        inputs: of the policy, by name.
    """

    policy: DiffusionPolicy
    weights_sha256: str
    inputs: Mapping[str, InputMapping]


def load(values: Values) -> Loaded:
    """Load the policy, prepare its network, and load the mapping of its inputs.

    Raises:
        ParaPolicyError: when a parameter is not valid or the checkpoint cannot be loaded.
    """
    if values["stamp_mode"] not in ("observation", "zero"):
        raise InputError(
            f"stamp_mode is '{values['stamp_mode']}'; expected 'observation' or 'zero'"
        )
    warm = values["warm_start"] and not values["lockstep"]
    if values["shift_noise"] and not warm:
        raise InputError("shift_noise is true; it needs warm_start: true and lockstep: false")
    chunking = values["real_time_chunking"]
    if chunking not in ("none", "hard", "soft"):
        raise InputError(f"real_time_chunking is '{chunking}'; expected 'none', 'hard' or 'soft'")
    if chunking != "none" and not warm:
        raise InputError(
            f"real_time_chunking is '{chunking}'; it needs warm_start: true and lockstep: false"
        )
    if values["added_latency_ms"] and values["lockstep"]:
        raise InputError(
            "added_latency_ms is set; in lockstep nothing is late: set lockstep: false"
        )
    if not values["checkpoint"]:
        raise InputError("parameter checkpoint is empty; give the directory of a checkpoint")
    if not values["inputs_file"]:
        raise InputError("parameter inputs_file is empty; give the file that maps topics to inputs")
    _options(values)  # fails before the slow part
    directory = resolve(values["checkpoint"])
    checkpoint = read_checkpoint(directory)
    policy = make_policy(
        checkpoint,
        directory,
        values["device"],
        engine=values["engine"],
        precision=values["precision"],
    )
    shapes = {name: tuple(shape) for name, shape in policy.config.inputs.items()}
    inputs = load_inputs(values["inputs_file"], shapes)
    policy.warm_up()
    return Loaded(policy, checkpoint.sha256, inputs)


def chunk_format(values: Values, config: PolicyConfig) -> ChunkFormat:
    """How chunks are published.

    Raises:
        InputError: when there are not as many joint names as actions, or no such axes.
    """
    joints = [name for name in values["joint_names"] if name] or list(config.action_names)
    if len(joints) != config.action_dim:
        raise InputError(f"joint_names are {joints}; the policy has {config.action_dim} actions")
    axes = list(values["marker_axes"])
    if values["marker_frame"]:
        check_axes(axes, config.action_dim)
    frame, scale = values["marker_frame"], values["marker_scale"]
    return ChunkFormat(joints, values["stamp_mode"] == "zero", frame, axes, scale)


def make_settings(loaded: Loaded, values: Values) -> PlannerSettings:
    """Everything that the planner must know.

    Raises:
        ParaPolicyError: when a parameter does not go together with the policy.
    """
    policy, inputs = loaded.policy, loaded.inputs
    sampler = _sampler(policy, values)
    return PlannerSettings(
        sampler=sampler,
        scheduler=values["scheduler"] or None,
        steps=values["steps"] or None,
        dt_ns=dt_ns(policy.config, values),
        max_age_ns=math.ceil(1e9 * values["max_observation_age_s"]),
        max_ages_ns={n: math.ceil(1e9 * i.max_age_s) for n, i in inputs.items() if i.max_age_s},
        max_unchanged_s={n: i.max_unchanged_s for n, i in inputs.items() if i.max_unchanged_s},
        linear=frozenset(n for n, i in inputs.items() if i.interpolation == "linear"),
        sampler_name=values["sampler"],
        anytime=_can_stop(sampler),
        deadline_s=values["deadline_ms"] / 1e3,
        max_overruns=values["max_overruns"],
        n_action_steps=_n_action_steps(policy.config, values),
        warm_start=values["warm_start"],
        shift_noise=values["shift_noise"],
        real_time_chunking=values["real_time_chunking"],
        replan_steps=values["replan_steps"],
        added_latency_s=values["added_latency_ms"] / 1e3,
        lockstep=values["lockstep"],
        message=settings_text(policy, values, inputs, loaded.weights_sha256),
    )


def change_settings(
    loaded: Loaded, settings: PlannerSettings, values: Values, changed: frozenset[str]
) -> PlannerSettings:
    """`settings` with the parameters in `changed`, which may change at run time, as in `values`.

    The sampler stays the same object unless it has to be made anew.

    Raises:
        ParaPolicyError: as `make_settings`.
    """
    policy = loaded.policy
    of_sampler = _OF_SAMPLER | {"deadline_ms"} if values["sampler"] == "auto" else _OF_SAMPLER
    sampler = _sampler(policy, values) if changed & of_sampler else settings.sampler
    return replace(
        settings,
        sampler=sampler,
        sampler_name=values["sampler"],
        anytime=_can_stop(sampler),
        dt_ns=dt_ns(policy.config, values),
        deadline_s=values["deadline_ms"] / 1e3,
        n_action_steps=_n_action_steps(policy.config, values),
        message=settings_text(policy, values, loaded.inputs, loaded.weights_sha256),
    )


def _sampler(policy: DiffusionPolicy, values: Values) -> Sampler:
    scheduler, steps = values["scheduler"] or None, values["steps"] or None
    return make_sampler(
        policy,
        values["sampler"],
        scheduler,
        steps,
        _options(values),
        deadline_s=solve_deadline_s(values),
    )


def _can_stop(sampler: Sampler) -> bool:
    bare = sampler.sampler if isinstance(sampler, CalibratedSampler) else sampler
    return not isinstance(bare, (Sequential, Asd))


def _n_action_steps(config: PolicyConfig, values: Values) -> int:
    wanted, available = int(values["n_action_steps"]), config.horizon - config.first_action
    if wanted > available:
        raise InputError(
            f"parameter n_action_steps is {wanted}; the policy predicts {available} actions from "
            f"the newest observation on: expected 1 to {available}, or 0 for the checkpoint's number"
        )
    return wanted


def _options(values: Values) -> dict[str, Any]:
    text = values["sampler_options"]
    try:
        parsed: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict) or not all(isinstance(name, str) for name in parsed):
        raise InputError(f"sampler_options is {text!r}; expected YAML like '{{window: 60}}'")
    return {**parsed, "tolerance": values["tolerance"]} if values["tolerance"] else parsed
