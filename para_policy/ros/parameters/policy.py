"""Parameters of policy_node, and which of them go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml
from rclpy.node import Node

from para_policy.errors import InputError
from para_policy.execution.coordinates import Coordinates, read_coordinates
from para_policy.planning.fleet import ALONE
from para_policy.ros.parameters.declare import NO_NAMES, Parameter, value
from para_policy.strict_yaml import read_yaml

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig

Values = Mapping[str, Any]
"""Values of parameters by name."""
_HOUR_S = 3600.0
_MAX_SEED = 2**63 - 1
NO_CPUS = [-1]

PARAMETERS = (
    Parameter("checkpoint", "", "Directory of the policy's checkpoint."),
    Parameter("device", "cpu", "Torch device of the network: cpu, cuda, cuda:1 ..."),
    Parameter(
        "engine",
        "auto",
        "How the network runs: eager (PyTorch as it is), compile, cuda-graph, openvino, onnxruntime; "
        "auto: the fastest one that works.",
    ),
    Parameter(
        "precision", "float32", "Of the network's arithmetic: float32, tf32, bfloat16, float16."
    ),
    Parameter(
        "sampler", "x0", "Sampler by name: x0, chord (calibrated checkpoints), auto ...", live=True
    ),
    Parameter(
        "sampler_options", "{}", "Options of the sampler as YAML: '{window: 60}'.", live=True
    ),
    Parameter(
        "tolerance",
        0.0,
        "Of the sampler, normalised action units; 0: as in sampler_options, or its own.",
        (0.0, 100.0),
        live=True,
    ),
    Parameter("scheduler", "", "Noise scheduler: ddpm, ddim ...; empty: the checkpoint's."),
    Parameter("steps", 0, "Denoising steps; 0: the checkpoint's.", (0, 10_000)),
    Parameter(
        "seed",
        0,
        "Seed of an episode's noise; a change counts from ~/reset on.",
        (0, _MAX_SEED),
        live=True,
    ),
    Parameter(
        "control_rate_hz",
        0.0,
        "Actions per second; 0: the checkpoint's rate.",
        (0.0, 1000.0),
        live=True,
    ),
    Parameter(
        "force_control_rate",
        False,
        "Let control_rate_hz rise above the rate of the demonstrations while the node runs.",
        live=True,
    ),
    Parameter(
        "n_action_steps",
        0,
        "Actions of a chunk, at most those that the policy predicts; 0: the checkpoint's number.",
        (0, 10_000),
        live=True,
    ),
    Parameter(
        "deadline_ms",
        0.0,
        "A chunk must be out so long after planning began; samplers that can stop in time. 0: never.",
        (0.0, 1e6),
        live=True,
    ),
    Parameter(
        "max_overruns",
        5,
        "So many chunks after the deadline in a row: publish none until one is in time. 0: never.",
        (0, 1_000_000),
    ),
    Parameter(
        "max_unconverged",
        3,
        "WARN after so many chunks in a row that have not converged. 0: never.",
        (0, 1_000_000),
    ),
    Parameter(
        "max_residual",
        0.0,
        "Hold rather than publish a chunk of a larger residual, normalised action units. 0: never.",
        (0.0, 1e6),
    ),
    Parameter(
        "max_error",
        0.0,
        "Hold rather than publish a chunk whose error bound is larger, or not known, physical units; "
        "needs a calibrated sampler and warm_start: false. 0: never.",
        (0.0, 1e6),
    ),
    Parameter("warm_start", True, "Start from the chunk before; not in lockstep."),
    Parameter("shift_noise", False, "Keep the noise of the chunk before, too; needs warm_start."),
    Parameter(
        "real_time_chunking",
        "none",
        "Freeze the actions that run while a chunk is planned: 'none', 'hard', or 'soft' for the "
        "later ones to be pulled towards the old chunk, too; needs warm_start.",
    ),
    Parameter(
        "coordinates",
        NO_NAMES,
        "What the action is made of, as for chunk_executor: 'number 0-2', 'angle 3' ...; soft chunking "
        "pulls only numbers and 6-D rotations.",
    ),
    Parameter(
        "latency_offset_s",
        0.0,
        "As that of chunk_executor: action i is executed at stamp + i dt + this.",
        (-1.0, 1.0),
    ),
    Parameter(
        "replan_steps",
        0,
        "Plan so many steps after the last chunk, at most its actions; 0: when it is about to run out.",
        (0, 10_000),
    ),
    Parameter(
        "added_latency_ms",
        0.0,
        "For experiments: every chunk is ready so much later.",
        (0.0, 1e4),
    ),
    Parameter(
        "robots",
        NO_NAMES,
        "Robots that are served in one batch: names before their topics; empty: one without a name.",
    ),
    Parameter("marker_frame", "", "Frame of ~/markers for RViz; empty: no markers."),
    Parameter("marker_axes", [0, 1], "Action coordinates that are x y, or x y z, in markers."),
    Parameter("marker_scale", 1.0, "Metres per action unit, in markers.", (1e-6, 1e6)),
    Parameter("inputs_file", "", "YAML file that maps topics to the policy's inputs."),
    Parameter(
        "joint_names", NO_NAMES, "Joints of the chunk; empty: the checkpoint's action names."
    ),
    Parameter(
        "stamp_mode",
        "observation",
        "Stamp of a chunk: 'observation', or 'zero' to start on arrival.",
    ),
    Parameter("lockstep", False, "The simulated time waits for every command."),
    Parameter("max_observation_age_s", 0.5, "Hold when the observation is older.", (1e-3, _HOUR_S)),
    Parameter(
        "max_future_s",
        0.005,
        "WARN when an observation is stamped further ahead of the clock; not with use_sim_time.",
        (0.0, _HOUR_S),
    ),
    Parameter(
        "spacing_tolerance",
        0.4,
        "WARN when the time between the observations that the policy sees differs from a step by "
        "more than this part of it.",
        (0.0, 100.0),
    ),
    Parameter(
        "rival_inputs",
        "hold",
        "When two nodes send the same values of an input: 'hold', or 'warn' and go on.",
    ),
    Parameter("torch_threads", 0, "Threads of torch on the CPU; 0: its default.", (0, 1024)),
    Parameter("cpu_affinity", NO_CPUS, "CPUs of the inference thread; [-1]: any.", (-1, 4095)),
    Parameter("autostart", False, "Configure and activate without being asked."),
)

LIVE = frozenset(parameter.name for parameter in PARAMETERS if parameter.live)
FIXED = frozenset(parameter.name for parameter in PARAMETERS) - LIVE


def present_values(node: Node, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of all parameters, `changes` taking the place of some."""
    values = {parameter.name: value(node, parameter.name) for parameter in PARAMETERS}
    return {**values, **(changes or {})}


def check_combinations(values: Values) -> None:
    """Refuse values that no policy could be served with, and those that do not go together.

    Raises:
        InputError: with what was expected and what to change.
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
    if values["rival_inputs"] not in ("hold", "warn"):
        raise InputError(f"rival_inputs is '{values['rival_inputs']}'; expected 'hold' or 'warn'")
    _check_accuracy(values, warm=warm)
    for name in ("added_latency_ms", "latency_offset_s"):
        if values[name] and values["lockstep"]:
            raise InputError(
                f"{name} is {values[name]:g}; in lockstep nothing is late: set lockstep: false"
            )
    if not values["checkpoint"]:
        raise InputError("parameter checkpoint is empty; give the directory of a checkpoint")
    if not values["inputs_file"]:
        raise InputError("parameter inputs_file is empty; give the file that maps topics to inputs")
    sampler_options(values)


def _check_accuracy(values: Values, *, warm: bool) -> None:
    for name in ("max_residual", "max_error"):
        if values[name] and values["lockstep"]:
            raise InputError(
                f"{name} is {values[name]:g}; in lockstep every chunk is waited for and none is "
                "withheld: set lockstep: false, or leave it at 0"
            )
    if values["max_error"] and warm:
        raise InputError(
            f"max_error is {values['max_error']:g} and warm_start true, after which no error bound "
            "is known: set warm_start: false, or use max_residual"
        )


def cpu_numbers(values: Values) -> list[int]:
    """The CPUs of `cpu_affinity`; none for any."""
    numbers = list(values["cpu_affinity"])
    return [] if numbers == NO_CPUS else numbers


def robot_names(values: Values) -> tuple[str, ...]:
    """The robots of `robots`; one without a name where none is given.

    Raises:
        InputError: when a name cannot stand in a topic, or is there twice.
    """
    names = tuple(name for name in values["robots"] if name)
    wrong = [name for name in names if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)]
    if wrong or len(set(names)) < len(names):
        raise InputError(
            f"robots are {list(names)}; expected different names of letters, digits and underscores, "
            "such as arm_1"
        )
    return names or ALONE


def action_coordinates(config: PolicyConfig, values: Values) -> Coordinates:
    """What the actions are made of.

    Raises:
        InputError: when `coordinates` cannot be read, or are not those of the policy's actions.
    """
    coordinates = read_coordinates([text for text in values["coordinates"] if text])
    coordinates.check(config.action_dim)
    return coordinates


def solve_deadline_s(values: Values) -> float | None:
    """Time after which solves are cut off; None where they are waited for."""
    enforced = values["deadline_ms"] > 0 and not values["lockstep"]
    return values["deadline_ms"] / 1e3 if enforced else None


def sampler_options(values: Values) -> dict[str, Any]:
    """Options of the sampler: those of `sampler_options`, with `tolerance` where it is given.

    Raises:
        InputError: when `sampler_options` is no mapping in YAML.
    """
    text = values["sampler_options"]
    try:
        parsed: Any = read_yaml(text)
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict) or not all(isinstance(name, str) for name in parsed):
        raise InputError(f"sampler_options is {text!r}; expected YAML like '{{window: 60}}'")
    return {**parsed, "tolerance": values["tolerance"]} if values["tolerance"] else parsed


def dt_ns(config: PolicyConfig, values: Values) -> int:
    """Time between actions in nanoseconds.

    Raises:
        InputError: when neither the checkpoint nor `control_rate_hz` says it.
    """
    rate_hz = values["control_rate_hz"] or config.control_hz
    if rate_hz is None:
        raise InputError(
            "parameter control_rate_hz is 0 and the checkpoint does not say at which rate its "
            "actions follow each other; set control_rate_hz to the rate, in Hz, at which the "
            "demonstrations were recorded"
        )
    if rate_hz < 1e-3:
        raise InputError(f"parameter control_rate_hz is {rate_hz:g}; expected 0, or 0.001 to 1000")
    return round(1e9 / rate_hz)
