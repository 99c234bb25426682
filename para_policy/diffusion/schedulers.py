"""Diffusers schedulers that a step table can represent, made from their configurations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from para_policy.diffusion.flow_matching import FlowMatching
from para_policy.diffusion.schedule_options import check_options
from para_policy.errors import InputError, shown

Scheduler: TypeAlias = (
    DDPMScheduler
    | DDIMScheduler
    | DPMSolverMultistepScheduler
    | UniPCMultistepScheduler
    | DEISMultistepScheduler
    | FlowMatchEulerDiscreteScheduler
    | FlowMatchHeunDiscreteScheduler
    | FlowMatching
)

SCHEDULERS: dict[str, type[Any]] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "deis": DEISMultistepScheduler,
    "flow_match_euler": FlowMatchEulerDiscreteScheduler,
    "flow_match_heun": FlowMatchHeunDiscreteScheduler,
}

FLOW_ONLY = ("flow_match_euler", "flow_match_heun")
"""Kinds that know no path but x = (1 - sigma) x0 + sigma e."""

_FOR_FLOW = (*FLOW_ONLY, "dpmsolver++", "unipc")
"""Kinds for a network that was trained with flow matching. DEIS leaves much noise on its samples there."""

# They take the same options and steps; the parallel ones only add a batched step, which is not used.
_PARALLEL: dict[str, type[Any]] = {"ddpm": DDPMParallelScheduler, "ddim": DDIMParallelScheduler}

_BY_HAND: dict[str, type[Any]] = {"flow_match_euler": FlowMatching}

# Betas that diffusers makes for DDPM only.
_OF_DDPM = ("laplace", "sigmoid")

# DPM-Solver has no clipping; below this log-SNR a cosine schedule divides by almost zero.
# The value is the one that diffusers recommends for `squaredcos_cap_v2`.
_LAMBDA_MIN_COSINE = -5.1

# The highest order that a step table holds, where it is not diffusers' default.
_ORDER = {"unipc": 1, "deis": 1}


def build_scheduler(config: Mapping[str, Any], kind: str | None = None) -> Scheduler:
    """Make a diffusers scheduler from its configuration.

    Args:
        config: with `_class_name`, as diffusers saves it.
        kind: one of `SCHEDULERS`, to use the same noise schedule with another sampler.

    Raises:
        InputError: for an unknown class, kind or key, values that make no noise schedule, or a kind
            for another path than that of the schedule.
    """
    own, trained = scheduler_kind(config), _class_of(config)
    known = _options(trained)
    unknown = sorted(key for key in config if key not in known and not key.startswith("_"))
    if unknown:
        raise InputError(
            f"{trained.__name__} has no option {unknown}; check the spelling or the diffusers version"
        )
    # Not `from_config`: it drops what `_use_default_values` lists, and diffusers lists there every
    # option that was passed by position, such as the number of training steps.
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if kind in (None, own):
        return _construct(trained, given)
    if kind not in SCHEDULERS:
        raise InputError(f"unknown scheduler {kind!r}; expected one of {sorted(SCHEDULERS)}")
    flow = is_flow(config)
    allowed = [
        name for name in SCHEDULERS if (name in _FOR_FLOW if flow else name not in FLOW_ONLY)
    ]
    if kind not in allowed:
        raise InputError(
            f"scheduler {kind!r} does not fit a network that was trained for {trained.__name__}: flow "
            f"matching and diffusion have different paths; expected one of {', '.join(allowed)}"
        )
    target = SCHEDULERS[kind]
    order = {"solver_order": _ORDER[kind]} if kind in _ORDER else {}
    if trained is FlowMatching:
        raise InputError(
            f"scheduler {kind!r} does not fit a network that was trained for FlowMatching, which has "
            f"levels and times of its own; expected {own}"
        )
    if flow:
        return _construct(target, {**_flow_options(given, kind), **order})
    shared = _options(target)
    options = {key: value for key, value in given.items() if key in shared} | order
    if options.get("beta_schedule") in _OF_DDPM:
        del options["beta_schedule"]
        options["trained_betas"] = _construct(trained, given).betas.tolist()
    # Their solver types have other names; the default is diffusers' choice.
    options.pop("solver_type", None)
    if kind == "dpmsolver++" and config.get("beta_schedule") == "squaredcos_cap_v2":
        options.setdefault("lambda_min_clipped", _LAMBDA_MIN_COSINE)
    options.pop("variance_type", None)
    return _construct(target, options)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a network of this configuration was trained with flow matching.

    Raises:
        InputError: for an unknown class.
    """
    return scheduler_kind(config) in FLOW_ONLY or bool(config.get("use_flow_sigmas"))


def flow_times(config: Mapping[str, Any]) -> tuple[float, float] | None:
    """What a network is told at the clean and at the noisy end of its flow.

    Times between them are continuous. None where the network was trained on whole timesteps.

    Raises:
        InputError: as `build_scheduler`.
    """
    if not is_flow(config):
        return None
    options = build_scheduler(config).config
    if "times" in options:
        clean, noisy = options["times"]
        return float(clean), float(noisy)
    duration = float(options["num_train_timesteps"])
    # Inverted levels are times of the data.
    return (duration, 0.0) if options.get("invert_sigmas") else (0.0, duration)


def _flow_options(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Options of another sampler on a path of flow matching.

    Raises:
        InputError: where the network is told or predicts what the other samplers do not know.
    """
    predicted = given.get("prediction_type", "flow_prediction")
    if given.get("invert_sigmas") or predicted != "flow_prediction":
        reason = "invert_sigmas" if given.get("invert_sigmas") else f"prediction_type={predicted!r}"
        raise InputError(
            f"scheduler {kind!r} does not fit a network that was trained with {reason}"
        )
    shift = given.get("shift", given.get("flow_shift", 1.0))
    options = {"num_train_timesteps": given.get("num_train_timesteps", 1000)}
    if kind in FLOW_ONLY:
        return {**options, "shift": shift}
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    return {**options, **flow, "flow_shift": shift}


def _construct(scheduler: type[Any], options: Mapping[str, Any]) -> Scheduler:
    check_options(options)
    try:
        built: Scheduler = scheduler(**options)
    # diffusers does not check its options: what it raises depends on where they fail.
    except Exception as error:
        raise InputError(
            f"{scheduler.__name__} cannot be made from {shown(dict(options))} "
            f"({type(error).__name__}: {error}); correct the noise schedule"
        ) from error
    alpha_bar = getattr(built, "alphas_cumprod", None)
    if alpha_bar is not None and not ((alpha_bar >= 0) & (alpha_bar <= 1)).all():
        raise InputError(
            f"{scheduler.__name__} with {shown(dict(options))} has betas that are no noise schedule; "
            "expected values in [0, 1]"
        )
    return built


def scheduler_kind(config: Mapping[str, Any]) -> str:
    """The name in `SCHEDULERS` of a scheduler configuration.

    Raises:
        InputError: for another class.
    """
    named = config.get("_class_name")
    for kinds in (SCHEDULERS, _PARALLEL, _BY_HAND):
        for kind, scheduler in kinds.items():
            if named == scheduler.__name__:
                return kind
    expected = sorted(cls.__name__ for cls in (*SCHEDULERS.values(), *_BY_HAND.values()))
    raise InputError(
        f"noise scheduler _class_name is {config.get('_class_name')!r}; expected one of {expected}"
    )


def class_name(scheduler: Any) -> str:
    """The `_class_name` of a scheduler's configuration, of the plain class where it is a parallel one.

    Raises:
        InputError: for an object of another class.
    """
    kind = kind_of(scheduler)
    hand = _BY_HAND.get(kind)
    return (hand if hand and isinstance(scheduler, hand) else SCHEDULERS[kind]).__name__


def _class_of(config: Mapping[str, Any]) -> type[Any]:
    kind = scheduler_kind(config)
    hand = _BY_HAND.get(kind)
    return hand if hand and config["_class_name"] == hand.__name__ else SCHEDULERS[kind]


def own_options(scheduler: Any) -> dict[str, Any]:
    """Options of a diffusers scheduler that its class knows.

    `Other.from_config(scheduler.config)` keeps what only the former class knew, without effect.
    """
    known = {name for base in type(scheduler).__mro__[:-1] for name in _options(base)}
    return {key: value for key, value in scheduler.config.items() if key in known}


def kind_of(scheduler: Any) -> str:
    """The name in `SCHEDULERS` of a diffusers scheduler.

    Raises:
        InputError: for an object of another class.
    """
    for kinds in (SCHEDULERS, _PARALLEL, _BY_HAND):
        for kind, known in kinds.items():
            if isinstance(scheduler, known):
                return kind
    expected = ", ".join(cls.__name__ for cls in (*SCHEDULERS.values(), *_BY_HAND.values()))
    raise InputError(f"cannot represent a {type(scheduler).__name__}; expected one of {expected}")


def _options(scheduler: type[Any]) -> set[str]:
    return set(inspect.signature(scheduler.__init__).parameters) - {"self"}
