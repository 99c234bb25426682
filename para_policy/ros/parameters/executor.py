"""Parameters of chunk_executor, and which of them go together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from para_policy.errors import InputError
from para_policy.execution.approach import fade_times_s
from para_policy.execution.coordinates import POSE_DIM
from para_policy.execution.guards import Limits
from para_policy.ros.messages.commands import OUTPUTS
from para_policy.ros.parameters.declare import NO_NAMES, Parameter

_NO_LIMIT = [math.inf]
_HOUR_S = 3600.0
TWIST_DIM = 6
_STEPWISE = ("float64_multi_array", "joint_trajectory")
"""Outputs that a simulator in lockstep may wait for."""
ORIENTATION_FROM_ACTIONS = [0.0, 0.0, 0.0, 0.0]
NO_SIZES = [0]
"""Default of a list of sizes: rclpy takes an empty list for a list of bytes."""
_PER_JOINT = "One number for all joints or one for each; .inf: no limit."

PARAMETERS = (
    Parameter("command_rate_hz", 50.0, "Commands per second; not used in lockstep.", (0.1, 1000.0)),
    Parameter("auto_enable", False, "Play chunks from the start, without ~/enable."),
    Parameter(
        "joint_names",
        NO_NAMES,
        "Joints that a chunk must have, in order; empty: those of the first chunk.",
    ),
    Parameter("lockstep", False, "Send one command for each tick of /clock."),
    Parameter("output", "float64_multi_array", f"Type of ~/command: {', '.join(OUTPUTS)}."),
    Parameter(
        "command_topics",
        NO_NAMES,
        "Topics of several controllers that share the action, in its order; empty: one, on ~/command.",
    ),
    Parameter("command_outputs", NO_NAMES, "Type of each of command_topics, as of output."),
    Parameter("command_sizes", NO_SIZES, "Number of actions for each of command_topics."),
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
        "max_future_s",
        0.005,
        "WARN when a chunk or a state is stamped further ahead of the clock; not with use_sim_time.",
        (0.0, _HOUR_S),
    ),
    Parameter(
        "over_budget",
        "hold",
        "Chunk whose actions are all past: 'hold', or 'last': play its last one on the next step.",
    ),
    Parameter(
        "coordinates",
        NO_NAMES,
        "What the action is made of, by places: 'number 0-2', 'angle 3', 'rotation_vector 3-5' ...; "
        "others are not mixed. Poses and twists are known.",
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
    Parameter("max_jump", _NO_LIMIT, "Largest distance from the robot's state. " + _PER_JOINT),
    Parameter(
        "max_approach_s",
        10.0,
        "Longest approach from where the robot stands to the action that is due, within velocity_max "
        + "and acceleration_max; farther actions are refused. 0: no approach, only a step within them.",
        (0.0, 60.0),
    ),
    Parameter(
        "state_topics",
        ["joint_states"],
        "Topics with the joint states, of one driver or of several.",
    ),
    Parameter("state_joints", NO_NAMES, "Joints in joint_states, in order; empty: joint_names."),
    Parameter(
        "max_state_age_s",
        0.5,
        "Hold when the robot's state is older, with max_jump always, else before the first command.",
        (1e-3, _HOUR_S),
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


def outputs(given: Mapping[str, Any]) -> list[str]:
    """Type of the commands for each controller."""
    return list(given["command_outputs"]) or [given["output"]]


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
    for name in ("joint_names", "state_joints", "state_topics", "command_topics"):
        for joint in given[name]:
            if given[name].count(joint) > 1:
                raise InputError(f"{name} has '{joint}' more than once; expected each once")
    if given["lockstep"]:
        _check_lockstep(given, limited)
    if given["coordinates"] and set(outputs(given)) <= {"pose_stamped", "twist_stamped"}:
        raise InputError(
            f"coordinates are {given['coordinates']} with output '{outputs(given)[0]}', which says "
            "what they are; leave them out"
        )
    _check_controllers(given)
    for output in outputs(given):
        _check_output(given, output, limited)
    if given["fixed_orientation"]:
        _check_orientation(given["fixed_orientation"], outputs(given))
    if given["over_budget"] == "last" and not given["max_chunk_age_s"]:
        raise InputError(
            "over_budget is 'last' and max_chunk_age_s is 0: chunks of any age would be played; "
            "set max_chunk_age_s, such as to the length of two chunks"
        )
    if not {"pose_stamped", "twist_stamped"}.issuperset(outputs(given)):
        _check_state_joints(given, limited)
    _check_jump(given, limits)


def _check_state_joints(given: dict[str, Any], limited: Sequence[str]) -> None:
    """Without topic and names nobody knows where the robot stands when it begins to move."""
    need_state = [
        name for name in ("max_jump", "velocity_max", "acceleration_max") if name in limited
    ]
    if need_state and not given["state_topics"]:
        raise InputError(
            f"{need_state[0]} is given but no state_topics; name the topic of the joint states"
        )
    states, joints = list(given["state_joints"]), list(given["joint_names"])
    if states != joints and sorted(states) == sorted(joints):
        raise InputError(
            f"state_joints are {states}, joint_names in another order: a joint would begin where "
            f"another one stands; expected {joints}, or leave state_joints out"
        )
    if need_state and not (states or joints):
        raise InputError(
            f"{need_state[0]} is given but neither state_joints nor joint_names; set state_joints to "
            "the names in joint_states, in the order of the actions: motion begins where they are"
        )


def _check_jump(given: dict[str, Any], limits: Limits) -> None:
    """Refuse a `max_jump` that `velocity_max` exceeds in one command, or takes too long to cover."""
    jumps, velocities, _ = np.broadcast_arrays(
        limits.max_jump, limits.velocity_max, limits.acceleration_max
    )
    times_s = fade_times_s(jumps, limits)
    for jump, velocity, time_s in zip(jumps, velocities, times_s, strict=True):
        if not math.isfinite(jump):
            continue
        found = f"max_jump {jump:g} and velocity_max {velocity:g} contradict each other: "
        step, longest_s = velocity / given["command_rate_hz"], given["max_approach_s"]
        if math.isfinite(velocity) and jump < step:
            raise InputError(
                f"{found}one command at {given['command_rate_hz']:g} Hz may move by {step:g}; "
                "expected a larger max_jump or a smaller velocity_max"
            )
        if longest_s and time_s > longest_s:
            raise InputError(
                f"{found}the approach of an action so far away takes {time_s:.3g} s, max_approach_s "
                f"is {longest_s:g}; expected a smaller max_jump, or a larger velocity_max, "
                "acceleration_max or max_approach_s"
            )


def _check_controllers(given: dict[str, Any]) -> None:
    """Of several controllers everybody has a topic, a type and a size, and all can be held alike."""
    names = ("command_topics", "command_outputs", "command_sizes")
    lists = {name: list(given[name]) for name in names}
    if len({len(entries) for entries in lists.values()}) > 1:
        found = ", ".join(f"{len(entries)} {name}" for name, entries in lists.items())
        raise InputError(f"{found}; expected one of each for every controller")
    if not lists["command_topics"]:
        return
    if given["output"] != CHOICES["output"][0]:
        raise InputError(
            f"output is '{given['output']}' with command_topics; give command_outputs instead"
        )
    for output in lists["command_outputs"]:
        if output not in OUTPUTS:
            raise InputError(f"command_outputs has '{output}'; expected {', '.join(OUTPUTS)}")
    twists = lists["command_outputs"].count("twist_stamped")
    if 0 < twists < len(lists["command_outputs"]):
        raise InputError(
            f"command_outputs are {lists['command_outputs']}: twist_stamped moves on while others "
            "stand, and is limited otherwise; expected it for all or for none"
        )
    pose = 3 if given["fixed_orientation"] else POSE_DIM
    for output, size in zip(lists["command_outputs"], lists["command_sizes"], strict=True):
        expected = {"twist_stamped": TWIST_DIM, "pose_stamped": pose}.get(output, size)
        if size < 1 or size != expected:
            raise InputError(
                f"command_sizes has {size} for '{output}'; expected {max(expected, 1)}"
                + ("" if output in ("twist_stamped", "pose_stamped") else " or more")
            )


def _check_output(given: dict[str, Any], output: str, limited: Sequence[str]) -> None:
    if output == "joint_trajectory" and not given["joint_names"]:
        raise InputError(
            "joint_names is empty; output 'joint_trajectory' expects the controller's joints"
        )
    if output not in ("pose_stamped", "twist_stamped"):
        return
    if not given["frame_id"]:
        raise InputError(f"frame_id is empty; output '{output}' expects the frame it is in")
    if given["state_joints"]:
        raise InputError(
            f"state_joints is {given['state_joints']} with output '{output}', whose commands are no "
            "joints; leave it out"
        )
    if output == "twist_stamped":  # has no positions, and holds by one zero twist
        useless = ("max_jump", "position_min", "position_max")
        if given["hold"] == "repeat":
            raise InputError(
                f"hold is 'repeat' with output '{output}', which would go on moving; "
                "expected 'silent': a zero twist is sent once"
            )
        for name in useless:
            if name in limited:
                raise InputError(
                    f"{name} is {given[name]} with output '{output}', whose commands are no "
                    "positions; leave it out, give velocity_max"
                )


def _check_lockstep(given: dict[str, Any], limited: Sequence[str]) -> None:
    """A simulator that waits for every command would wait for ever for one that is withheld."""
    wrong = [name for name in ("latency_offset_s", "max_chunk_age_s") if given[name]]
    wrong += [name for name in ("over_budget", "hold") if given[name] != CHOICES[name][0]]
    wrong += limited
    if not {*_STEPWISE}.issuperset(outputs(given)):
        wrong.append("command_outputs" if given["command_outputs"] else "output")
    if wrong:
        raise InputError(
            f"{wrong[0]} is {given[wrong[0]]!r} in lockstep, where every tick needs exactly one "
            f"command, {' or '.join(_STEPWISE)}, for each controller; leave {', '.join(wrong)} out, or "
            "set lockstep to false"
        )


def _check_orientation(quaternion: Sequence[float], outputs: Sequence[str]) -> None:
    if "pose_stamped" not in outputs:
        raise InputError(
            f"fixed_orientation is {quaternion} with output '{outputs[0]}'; only 'pose_stamped' "
            "has one, leave it out"
        )
    if len(quaternion) != 4 or not abs(math.hypot(*quaternion) - 1.0) < 1e-3:
        raise InputError(
            f"fixed_orientation is {quaternion}; expected a quaternion x y z w of length 1, "
            "or four zeros where the actions bring one"
        )
