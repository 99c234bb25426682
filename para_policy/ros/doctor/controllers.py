"""Check of the trajectory controllers behind an executor: what they do with a stream of commands.

How they read messages is that of JointTrajectoryController in ros2_controllers 4.42; the guide
docs/guides/arm.md tells it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from para_policy.ros.doctor.connections import TRAJECTORY, published
from para_policy.ros.doctor.listener import Listener
from para_policy.ros.doctor.report import Finding, fail, ok, skipped, warn
from para_policy.ros.doctor.running import running_values
from para_policy.ros.graph import full_name

_SUBJECT = "controller"


def check_controllers(listener: Listener, executor: str) -> Iterator[Finding]:
    """The parameters of those that hear the trajectories of `executor`, beside its own."""
    topics = published(listener.node, executor, {TRAJECTORY})
    hearers = sorted(
        {
            full_name(subscription)
            for topic in topics
            for subscription in listener.node.get_subscriptions_info_by_topic(topic)
        }
    )
    if not hearers:
        return
    own = running_values(listener, executor)
    found = {name: running_values(listener, name) for name in hearers}
    controllers = {name: values for name, values in found.items() if _is_controller(values)}
    if not own or not controllers:
        names = ", ".join(hearers if own else [executor])
        text = f"parameters of a trajectory controller could not be read from {names}"
        yield skipped(_SUBJECT, text, "compare with docs/guides/arm.md by hand")
        return
    for name, values in controllers.items():
        limits = _slice_for(values["joints"], own)
        findings = [*_joints(name, values, list(limits)), *_tolerances(name, values, limits)]
        findings += [*_stream(name, values), *_holding(name, values)]
        fine = f"{name} takes {len(values['joints'])} joints, follows each message from its last set-point"
        yield from findings or [ok(_SUBJECT, f"{fine} and does not cancel")]


def _is_controller(values: Mapping[str, Any]) -> bool:
    return "joints" in values and bool(
        {"interpolate_from_desired_state", "open_loop_control"} & set(values)
    )


def _slice_for(joints: Sequence[str], executor: Mapping[str, Any]) -> dict[str, float]:
    """Joints of the trajectory that the executor means for a controller of `joints`, and their max_jump.

    Of several slices that with the most of them: topics may be remapped, joints are not.
    """
    ours, jumps = list(executor["joint_names"]), list(executor["max_jump"])
    limits = dict(zip(ours, jumps * len(ours) if len(jumps) == 1 else jumps, strict=False))
    ends = [size for size in executor.get("command_sizes", ()) if size]
    slices, first = [], 0
    for output, size in zip(executor.get("command_outputs", ()), ends, strict=False):
        if output == "joint_trajectory":
            slices.append(ours[first : first + size])
        first += size
    found = max(slices or [ours], key=lambda part: len({*part} & {*joints}))
    return {joint: limits.get(joint, math.inf) for joint in found}


def _joints(name: str, controller: Mapping[str, Any], ours: Sequence[str]) -> Iterator[Finding]:
    """A message with other joints is refused whole."""
    theirs = list(controller["joints"])
    unknown = [joint for joint in ours if joint not in theirs]
    lacking = [joint for joint in theirs if joint not in ours]
    if unknown:
        text = f"{name} has no joint {', '.join(unknown)}: it refuses every message"
        yield fail(_SUBJECT, text, f"joint_names of chunk_executor: {', '.join(theirs)}")
    elif lacking and not controller.get("allow_partial_joints_goal"):
        text = f"{name} has {len(theirs)} joints, a message {len(ours)}: it refuses every message"
        yield fail(_SUBJECT, text, f"{', '.join(lacking)} need a controller of their own")
    elif lacking:
        text = f"{name} freezes {', '.join(lacking)} where each message finds them"
        yield warn(_SUBJECT, text, "give them a controller of their own if anybody else moves them")


def _tolerances(
    name: str, controller: Mapping[str, Any], max_jump: Mapping[str, float]
) -> Iterator[Finding]:
    """Beyond its tolerance the controller cancels, and the next message begins again."""
    for joint, jump in max_jump.items():
        tolerance = controller.get(f"constraints.{joint}.trajectory", 0.0)
        if 0 < tolerance <= jump:
            limit = f"max_jump is {jump:g}" if math.isfinite(jump) else "max_jump is not set"
            text = (
                f"{name} cancels where {joint} is {tolerance:g} off (constraints.{joint}.trajectory), "
                f"{limit}: it would go on with the next message, in steps"
            )
            yield fail(_SUBJECT, text, f"set it to 0.0, or max_jump below {tolerance:g}")


def _stream(name: str, controller: Mapping[str, Any]) -> Iterator[Finding]:
    """Messages that replace each other many times per second."""
    if controller.get("interpolation_method") == "none":
        text = (
            f"{name} has interpolation_method 'none': it waits for the time of a point, and the "
            "next message comes before; then it jumps"
        )
        yield fail(_SUBJECT, text, "set it to splines: single positions are joined by lines")
    if not (
        controller.get("interpolate_from_desired_state") or controller.get("open_loop_control")
    ):
        text = (
            f"{name} begins each message at the measured state, which lags: the arm is pulled back"
        )
        yield fail(
            _SUBJECT, text, "interpolate_from_desired_state: true (Humble: open_loop_control)"
        )
    if controller.get("speed_scaling.state_interface"):
        text = f"{name} scales time: a stream is not slower for it, the robot lags more"
        yield warn(
            _SUBJECT, text, "run at 100 %; disable chunk_executor before you pause the robot"
        )


def _holding(name: str, controller: Mapping[str, Any]) -> Iterator[Finding]:
    """What happens when no message comes any more: the last set-point should stay."""
    goal_time = controller.get("constraints.goal_time", 0.0)
    timeout = controller.get("cmd_timeout", 0.0)
    goals = [j for j in controller["joints"] if controller.get(f"constraints.{j}.goal", 0.0) > 0]
    if goal_time > 0 and goals:
        text = (
            f"{name} gives up its set-point {goal_time:g} s after the last message where "
            f"{', '.join(goals)} rest off the goal (constraints.goal_time)"
        )
        yield warn(_SUBJECT, text, "constraints.goal_time: 0.0, so that the robot holds still")
    if 0 < timeout <= goal_time:
        text = f"{name} ignores its cmd_timeout {timeout:g} s, as constraints.goal_time is {goal_time:g}"
        yield warn(_SUBJECT, text, "set cmd_timeout above constraints.goal_time, or to 0.0")
