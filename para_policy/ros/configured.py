"""What a policy node has from on_configure to on_cleanup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from rclpy.lifecycle import LifecycleNode

from para_policy.ros.inputs import InputMapping, load_inputs
from para_policy.ros.planner import Planner
from para_policy.ros.policy_interface import PolicyInterface
from para_policy.ros.policy_parameters import cpu_numbers, present_values
from para_policy.ros.policy_settings import joint_names, load, make_settings
from para_policy.ros.statistics import PlanStatistics, gpu_memory
from para_policy.ros.worker import Worker, check_cpus

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy


@dataclass(frozen=True)
class Configured:
    """A policy, ready to plan, and its connections."""

    policy: DiffusionPolicy
    planner: Planner
    statistics: PlanStatistics
    interface: PolicyInterface
    worker: Worker

    def numbers(self, now_ns: int) -> dict[str, Any]:
        """What `/diagnostics` shows beside the last chunk."""
        ages = {
            f"observation_age_ms/{name}": 1e3 * age_s
            for name, age_s in self.planner.observation_ages_s(now_ns).items()
        }
        return self.statistics.values() | gpu_memory(self.policy.device) | ages

    def close(self) -> None:
        """Wait for the plan in progress, and take the connections down."""
        self.worker.stop()
        self.interface.close()


def configure(
    node: LifecycleNode,
    observe: Callable[[str, InputMapping, Any], None],
    reset: Callable[[Any, Any], Any],
    plan: Callable[[], None],
) -> Configured:
    """Make everything that the parameters of `node` describe.

    Args:
        observe, reset: see `PolicyInterface`.
        plan: the work of the inference thread.
    Raises:
        ParaPolicyError: when a parameter is not valid, or a file cannot be used.
    """
    values = present_values(node)
    cpus = cpu_numbers(values)
    check_cpus(cpus)  # before the slow part, and before there is something to take down
    if values["torch_threads"]:
        torch.set_num_threads(values["torch_threads"])
    policy = load(values)
    joints = joint_names(values, policy.config)
    inputs = load_inputs(values["inputs_file"], policy.config.inputs)
    planner = Planner(policy, make_settings(policy, values, inputs), values["seed"])
    planner.warm_up()
    interface = PolicyInterface(
        node,
        inputs,
        observe,
        reset,
        joint_names=joints,
        stamp_mode=values["stamp_mode"],
        lockstep=values["lockstep"],
    )
    worker = Worker(plan, "inference", cpus)
    return Configured(policy, planner, PlanStatistics(), interface, worker)
