"""Setup of chunk_executor: what plays chunks, made from its parameters."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rclpy.node import Node

from para_policy.errors import InputError
from para_policy.execution.blending import Blending, CrossFade, NoBlending, TemporalEnsemble
from para_policy.execution.commander import Commander
from para_policy.execution.coordinates import POSE_DIM, Coordinates, read_coordinates
from para_policy.execution.guards import Guards, Limits
from para_policy.execution.player import ChunkPlayer, PlayerSettings
from para_policy.ros.graph import full_topic
from para_policy.ros.messages.commands import OutputOptions
from para_policy.ros.parameters.declare import names, refuse_changes, value
from para_policy.ros.parameters.executor import (
    ORIENTATION_FROM_ACTIONS,
    PARAMETERS,
    TWIST_DIM,
    check_choices,
    check_combinations,
    outputs,
)
from para_policy.ros.playing.controllers import Controller, coordinates_of, make_controllers
from para_policy.ros.playing.present import StateSource, state_sources


@dataclass(frozen=True)
class Setup:
    """Everything that the parameters decide.

    Attributes:
        controllers: what the commands go to, in the order of the actions.
        coordinates: of the actions.
        unmixed: those that are to be mixed, but cannot be, in words; empty: none.
        joint_names: that a chunk must have, in order; []: those of the first chunk.
        state_joints: names of the same joints in the joint states; []: `joint_names`.
        states: where the guards learn the present state; (): they need none.
        max_state_age_ns: a state of the robot that is older does not count.
        max_future_ns: chunks and states that are stamped further ahead of the clock are told of.
    """

    commander: Commander
    player: ChunkPlayer
    controllers: tuple[Controller, ...]
    coordinates: Coordinates
    unmixed: str
    joint_names: list[str]
    state_joints: list[str]
    states: tuple[StateSource, ...]
    lockstep: bool
    period_s: float
    max_state_age_ns: int
    max_future_ns: int


def load_setup(node: Node) -> Setup:
    """Read all parameters; later changes are refused.

    Raises:
        InputError: when a value is not known or two values do not go together.
    """
    given = {parameter.name: value(node, parameter.name) for parameter in PARAMETERS}
    lists = ("joint_names", "state_joints", "state_topics", "command_topics", "command_outputs")
    given |= {name: names(node, name) for name in (*lists, "coordinates")}
    given["command_sizes"] = [size for size in given["command_sizes"] if size]
    check_choices(given)
    limit_names = [limit.name for limit in fields(Limits)]
    given |= {name: list(given[name]) for name in (*limit_names, "fixed_orientation")}
    if given["fixed_orientation"] == ORIENTATION_FROM_ACTIONS:
        given["fixed_orientation"] = []
    limits = Limits(**{name: tuple(given[name]) for name in limit_names})
    check_combinations(given, limits)
    _check_topics(node, given)
    setup = _make_setup(given, limits)
    refuse_changes(node, PARAMETERS)
    return setup


def _check_topics(node: Node, given: dict[str, Any]) -> None:
    """Refuse names that are no topics, and topics that would meet, however they are spelled."""
    heard = {node.resolve_topic_name("action_chunk"): "action_chunk"}
    sent: dict[str, str] = {}
    for parameter, seen, others in (("state_topics", heard, sent), ("command_topics", sent, heard)):
        for name in given[parameter]:
            try:
                topic = full_topic(name, node)
            except InputError as error:
                raise InputError(f"{parameter} has '{name}', which is {error}") from error
            if topic in seen or topic in others:
                other = seen.get(topic) or others[topic]
                raise InputError(
                    f"{parameter} has '{name}', which is {topic}, as is '{other}'; "
                    "expected a topic of its own"
                )
            seen[topic] = name


def unmixed_warning(unmixed: str) -> str:
    """What to tell a person about coordinates that are to be mixed, but cannot be."""
    return (
        f"coordinates {unmixed} of the action are played without interpolation and blending, as "
        "they may be angles or rotations; set parameter coordinates, such as ['number 0-5']"
    )


def _action_dim(given: dict[str, Any], limits: Limits) -> int | None:
    """The number of coordinates that all parameters agree on; None: the first chunk decides."""
    sizes = {
        "joint_names": len(given["joint_names"]),
        "the limits": limits.joints or 0,
        "state_joints": len(given["state_joints"]),
    }
    if given["command_sizes"]:
        sizes["command_sizes"] = sum(given["command_sizes"])
    if given["output"] == "twist_stamped":
        sizes["output 'twist_stamped'"] = TWIST_DIM
    if given["output"] == "pose_stamped":
        sizes["output 'pose_stamped'"] = 3 if given["fixed_orientation"] else POSE_DIM
    known = {name: size for name, size in sizes.items() if size}
    if len(set(known.values())) > 1:
        found = ", ".join(f"{size} for {name}" for name, size in known.items())
        raise InputError(f"the number of actions differs: {found}; expected the same everywhere")
    return next(iter(known.values()), None)


def _blending(given: dict[str, Any]) -> Blending:
    if given["blending"] == "linear":
        return CrossFade(fade_ns=round(1e9 * given["blend_s"]))
    if given["blending"] == "ensemble":
        return TemporalEnsemble(given["ensemble_coefficient"])
    return NoBlending()


def _make_setup(given: dict[str, Any], limits: Limits) -> Setup:
    action_dim = _action_dim(given, limits)
    mixes = given["interpolation"] != "none" or given["blending"] != "none"
    period_s = 1.0 / given["command_rate_hz"]
    joints = given["joint_names"]
    horizon_ns = round(1e9 * given["horizon_periods"] * period_s)
    max_state_age_ns = round(1e9 * given["max_state_age_s"])
    options = OutputOptions(
        horizon_ns, joints, given["frame_id"], tuple(given["fixed_orientation"])
    )
    controllers = make_controllers(given, options)
    coordinates = coordinates_of(controllers, read_coordinates(given["coordinates"]))
    if action_dim is not None:
        coordinates.check(action_dim)
    twist = outputs(given)[0] == "twist_stamped"
    settings = PlayerSettings(
        offset_ns=round(1e9 * given["latency_offset_s"]),
        max_age_ns=round(1e9 * given["max_chunk_age_s"]) or None,
        catch_up=given["over_budget"] == "last",
        interpolation=given["interpolation"],
        blending=_blending(given),
        coordinates=coordinates,
    )
    player = ChunkPlayer(action_dim, settings)
    commander = Commander(
        player,
        Guards(limits, period_s, joints, commands_are_velocities=twist, coordinates=coordinates),
        hold="zero" if twist else given["hold"],
        latch=given["on_violation"] == "latch",
        coordinates=coordinates,
        max_state_age_ns=max_state_age_ns,
        max_approach_s=given["max_approach_s"],
        enabled=given["auto_enable"],
    )
    return Setup(
        commander=commander,
        player=player,
        controllers=controllers,
        coordinates=coordinates,
        unmixed=coordinates.untold(action_dim) if mixes else "",
        joint_names=joints,
        state_joints=given["state_joints"],
        states=state_sources(given, limits, controllers),
        lockstep=given["lockstep"],
        period_s=period_s,
        max_state_age_ns=max_state_age_ns,
        max_future_ns=round(1e9 * given["max_future_s"]),
    )
