"""Parts of a policy node that live from on_configure to on_cleanup."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from rclpy.lifecycle import LifecycleNode

from para_policy.planning.fleet import Fleet
from para_policy.planning.worker import Worker, check_cpus
from para_policy.ros.messages.input_reader import InputReader
from para_policy.ros.parameters.policy import cpu_numbers, present_values, robot_names
from para_policy.ros.serving.loading import LoadedPolicy, load
from para_policy.ros.serving.planner_settings import make_settings, unmixed
from para_policy.ros.serving.robot import ServedRobot
from para_policy.ros.serving.topics import RobotTopics, chunk_format, input_topics


@dataclass(frozen=True)
class Configured:
    """A policy, ready to plan, and its connections.

    Attributes:
        robots: by name; one without a name where there is only one.
    """

    loaded: LoadedPolicy
    fleet: Fleet
    robots: Mapping[str, ServedRobot]
    worker: Worker

    def close(self) -> None:
        """End the solve in progress, and take the connections down."""
        self.fleet.cancel()
        self.worker.stop()
        for robot in self.robots.values():
            robot.close()


def configure(
    node: LifecycleNode,
    observe: Callable[[str, str, InputReader, Any], None],
    reset: Callable[[str, Any, Any], Any],
    plan: Callable[[], None],
    report: Callable[[], None],
) -> Configured:
    """Make everything that the parameters of `node` describe.

    Args:
        observe, reset: as for `RobotTopics`, with the name of the robot first.
        plan: the work of the inference thread.
        report: publishes diagnostics.
    Raises:
        ParaPolicyError: when a parameter is not valid, or a file cannot be used.
    """
    values = present_values(node)
    names, cpus = robot_names(values), cpu_numbers(values)
    check_cpus(cpus)  # before the slow part, and before there is something to take down
    if values["torch_threads"]:
        torch.set_num_threads(values["torch_threads"])
    loaded = load(values)
    loaded = replace(loaded, topics=input_topics(node, loaded.inputs, names))
    chunks = chunk_format(values, loaded.policy.config)
    settings = make_settings(loaded, values)
    for warning in unmixed(settings, loaded.policy.config):
        node.get_logger().warning(warning)
    fleet = Fleet(loaded.policy, settings, values["seed"], names)
    fleet.warm_up()
    robots: dict[str, ServedRobot] = {}
    with ExitStack() as undo:
        for name in names:
            topics = RobotTopics(
                node,
                name,
                loaded.inputs,
                values["max_observation_age_s"],
                functools.partial(observe, name),
                functools.partial(reset, name),
                chunks,
                lockstep=values["lockstep"],
            )
            undo.callback(topics.close)
            robots[name] = ServedRobot(
                node,
                fleet.planners[name],
                topics,
                label=name,
                checkpoint=values["checkpoint"],
                rivals_hold=values["rival_inputs"] == "hold",
                report=report,
            )
        worker = Worker(plan, "inference", cpus)
        undo.pop_all()
    return Configured(loaded, fleet, robots, worker)
