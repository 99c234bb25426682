"""Parameters of policy_node, and the planner that they describe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import yaml
from rclpy.node import Node

from para_policy import load_policy
from para_policy.errors import InputError
from para_policy.ros.parameters import NO_NAMES, Parameter, value
from para_policy.ros.planner import Planner, PlannerSettings

if TYPE_CHECKING:
    from para_policy.policies import PolicyConfig

_HOUR_S = 3600.0
_MAX_SEED = 2**63 - 1

PARAMETERS = (
    Parameter("checkpoint", "", "Directory of the policy's checkpoint."),
    Parameter("device", "cpu", "Torch device of the network: cpu, cuda, cuda:1 ..."),
    Parameter("sampler", "x0", "Sampler by name: x0, chord (calibrated checkpoints), auto ..."),
    Parameter("sampler_options", "{}", "Options of the sampler as YAML: '{tolerance: 0.003}'."),
    Parameter("scheduler", "", "Noise scheduler: ddpm, ddim ...; empty: the checkpoint's."),
    Parameter("steps", 0, "Denoising steps; 0: the checkpoint's.", (0, 10_000)),
    Parameter(
        "seed", 0, "Seed of an episode's noise; a change counts from ~/reset on.", (0, _MAX_SEED)
    ),
    Parameter(
        "control_rate_hz", 0.0, "Actions per second; 0: the checkpoint's rate.", (0.0, 1000.0)
    ),
    Parameter("deadline_ms", 0.0, "A longer planning time counts as a miss; 0: never.", (0.0, 1e6)),
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
    Parameter("torch_threads", 0, "Threads of torch on the CPU; 0: its default.", (0, 1024)),
    Parameter("autostart", False, "Configure and activate without being asked."),
)


def load_planner(node: Node) -> tuple[Planner, PolicyConfig]:
    """Load the policy and make its planner.

    Raises:
        ParaPolicyError: when a parameter is not valid or the checkpoint cannot be loaded.
    """
    if value(node, "stamp_mode") not in ("observation", "zero"):
        raise InputError(
            f"stamp_mode is '{value(node, 'stamp_mode')}'; expected 'observation' or 'zero'"
        )
    if not value(node, "checkpoint"):
        raise InputError("parameter checkpoint is empty; give the directory of a checkpoint")
    if not value(node, "inputs_file"):
        raise InputError("parameter inputs_file is empty; give the file that maps topics to inputs")
    options = _options(value(node, "sampler_options"))
    policy = load_policy(value(node, "checkpoint"), device=value(node, "device"))
    scheduler, steps = value(node, "scheduler") or None, value(node, "steps") or None
    rate_hz = value(node, "control_rate_hz") or policy.config.control_hz
    if rate_hz is None:
        raise InputError(
            "parameter control_rate_hz is 0 and the checkpoint does not say at which rate its "
            "actions follow each other; set control_rate_hz to the rate, in Hz, at which the "
            "demonstrations were recorded"
        )
    settings = PlannerSettings(
        sampler=policy.sampler(value(node, "sampler"), scheduler=scheduler, steps=steps, **options),
        scheduler=scheduler,
        steps=steps,
        dt_ns=round(1e9 / rate_hz),
        max_age_ns=math.ceil(1e9 * value(node, "max_observation_age_s")),
        deadline_s=value(node, "deadline_ms") / 1e3,
        lockstep=value(node, "lockstep"),
    )
    return Planner(policy, settings, seed=value(node, "seed")), policy.config


def _options(text: str) -> dict[str, Any]:
    try:
        parsed: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict):
        raise InputError(f"sampler_options is {text!r}; expected YAML like '{{tolerance: 0.003}}'")
    return parsed
