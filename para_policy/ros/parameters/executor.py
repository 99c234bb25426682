"""Parameters of chunk_executor, and which of them go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from para_policy.errors import InputError
from para_policy.execution.guards import Limits
from para_policy.ros.messages.commands import OUTPUTS
from para_policy.ros.parameters.declare import NO_NAMES, Parameter

_NO_LIMIT = [math.inf]
_HOUR_S = 3600.0
ORIENTATION_FROM_ACTIONS = [0.0, 0.0, 0.0, 0.0]
_PER_JOINT = "One number for all joints or one for each; .inf: no limit."

PARAMETERS = (
    Parameter("command_rate_hz", 50.0, "Commands per second; not used in lockstep.", (0.1, 1000.0)),
    Parameter("auto_enable", False, "Play chunks from the start, without ~/enable."),
    Parameter("joint_names", NO_NAMES, "Joints that a chunk must have, in order; empty: any."),
    Parameter("lockstep", False, "Send one command for each tick of /clock."),
    Parameter("output", "float64_multi_array", f"Type of ~/command: {', '.join(OUTPUTS)}."),
    Parameter(
        "horizon_periods",
        2.0,
        "The point of joint_trajectory is so many command periods ahead; the robot lags by them.",
        (1.0, 10.0),
    ),
    Parameter("frame_id", "", "Frame of pose_stamped and twist_stamped."),
    Parameter(
        "fixed_orientation",
        ORIENTATION_FROM_ACTIONS,
        "Quaternion x y z w of pose_stamped whose actions are x y z; zeros: it is in the actions.",
    ),
    Parameter(
        "latency_offset_s",
        0.0,
        "Action i is due at stamp + i dt + this; negative: earlier, for a robot that follows late.",
        (-1.0, 1.0),
    ),
    Parameter(
        "max_chunk_age_s", 0.0, "Play no chunk whose observation is older; 0: any.", (0.0, _HOUR_S)
    ),
    Parameter(
        "over_budget",
        "hold",
        "Chunk whose actions are all past: 'hold', or 'last': play its last one on the next step.",
    ),
    Parameter("interpolation", "none", "Between actions: 'none' (hold each) or 'linear'."),
    Parameter("blending", "none", "Between chunks: 'none', 'linear' or 'ensemble'."),
    Parameter("blend_s", 0.2, "Duration of linear blending.", (1e-3, 10.0)),
    Parameter(
        "ensemble_coefficient",
        0.01,
        "Weight exp(-coefficient i) of chunk i, oldest first; negative: trust the newest most.",
        (-10.0, 10.0),
    ),
    Parameter("position_min", [-math.inf], "Smallest command. " + _PER_JOINT),
    Parameter("position_max", _NO_LIMIT, "Largest command. " + _PER_JOINT),
    Parameter("velocity_max", _NO_LIMIT, "Largest change per second. " + _PER_JOINT),
    Parameter("acceleration_max", _NO_LIMIT, "Largest change of the velocity. " + _PER_JOINT),
    Parameter("max_jump", _NO_LIMIT, "Largest distance from joint_states. " + _PER_JOINT),
    Parameter("state_joints", NO_NAMES, "Joints in joint_states, in order; empty: joint_names."),
    Parameter(
        "max_state_age_s", 0.5, "With max_jump, hold when joint_states is older.", (1e-3, _HOUR_S)
    ),
    Parameter("hold", "silent", "While holding: 'silent', or 'repeat' the last safe command."),
    Parameter(
        "on_violation",
        "latch",
        "After a guard: 'latch' holds until ~/enable is called, 'next_chunk' plays the next one.",
    ),
)

CHOICES: dict[str, tuple[str, ...]] = {
    "output": tuple(OUTPUTS),
    "over_budget": ("hold", "last"),
    "interpolation": ("none", "linear"),
    "blending": ("none", "linear", "ensemble"),
    "hold": ("silent", "repeat"),
    "on_violation": ("latch", "next_chunk"),
}


def check_choices(given: dict[str, Any]) -> None:
    """Refuse unknown words.

    Raises:
        InputError: with the words that are known.
    """
    for name, known in CHOICES.items():
        if given[name] not in known:
            expected = " or ".join(f"'{choice}'" for choice in known)
            raise InputError(f"{name} is '{given[name]}'; expected {expected}")


def check_combinations(given: dict[str, Any], limits: Limits) -> None:
    """Refuse values that do not go together.

    Raises:
        InputError: with what was expected and what to change.
    """
    limited = limits.given()
    for name in ("joint_names", "state_joints"):
        for joint in given[name]:
            if given[name].count(joint) > 1:
                raise InputError(f"{name} has '{joint}' more than once; expected each joint once")
    if given["lockstep"]:
        _check_lockstep(given, limited)
    _check_output(given, limited)
    if given["fixed_orientation"]:
        _check_orientation(given["fixed_orientation"], given["output"])
    if given["over_budget"] == "last" and not given["max_chunk_age_s"]:
        raise InputError(
            "over_budget is 'last' and max_chunk_age_s is 0: chunks of any age would be played; "
            "set max_chunk_age_s, such as to the length of two chunks"
        )
    if "max_jump" in limited and not (given["state_joints"] or given["joint_names"]):
        raise InputError(
            "max_jump is given but neither state_joints nor joint_names; set state_joints to the "
            "names in joint_states, in the order of the actions"
        )


def _check_output(given: dict[str, Any], limited: Sequence[str]) -> None:
    output = given["output"]
    if output == "joint_trajectory" and not given["joint_names"]:
        raise InputError(
            "joint_names is empty; output 'joint_trajectory' expects the controller's joints"
        )
    if output not in ("pose_stamped", "twist_stamped"):
        return
    if not given["frame_id"]:
        raise InputError(f"frame_id is empty; output '{output}' expects the frame it is in")
    useless = ["max_jump"]  # joint_states has other coordinates
    if output == "twist_stamped":  # has no positions, and holds by one zero twist
        useless += ["position_min", "position_max"]
        if given["hold"] == "repeat":
            raise InputError(
                f"hold is 'repeat' with output '{output}', which would go on moving; "
                "expected 'silent': a zero twist is sent once"
            )
    for name in useless:
        if name in limited:
            raise InputError(
                f"{name} is {given[name]} with output '{output}', whose coordinates it does "
                "not know; leave it out, give velocity_max"
            )


def _check_lockstep(given: dict[str, Any], limited: Sequence[str]) -> None:
    """A simulator that waits for every command would wait for ever for one that is withheld."""
    wrong = [name for name in ("latency_offset_s", "max_chunk_age_s") if given[name]]
    wrong += [name for name in ("over_budget", "hold", "output") if given[name] != CHOICES[name][0]]
    wrong += limited
    if wrong:
        raise InputError(
            f"{wrong[0]} is {given[wrong[0]]!r} in lockstep, where every tick needs exactly one "
            f"Float64MultiArray; leave {', '.join(wrong)} out, or set lockstep to false"
        )


def _check_orientation(quaternion: Sequence[float], output: str) -> None:
    if output != "pose_stamped":
        raise InputError(
            f"fixed_orientation is {quaternion} with output '{output}'; only 'pose_stamped' "
            "has one, leave it out"
        )
    if len(quaternion) != 4 or not abs(math.hypot(*quaternion) - 1.0) < 1e-3:
        raise InputError(
            f"fixed_orientation is {quaternion}; expected a quaternion x y z w of length 1, "
            "or four zeros where the actions bring one"
        )
