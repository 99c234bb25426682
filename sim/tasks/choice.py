"""The simulated tasks that there are, and which of them a checkpoint plays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from para_policy.errors import InputError
from para_policy.policies.config import PolicyConfig
from sim.aloha.task import ALOHA
from sim.pusht.task import PUSHT
from sim.tasks.task import SimulatedTask

TASKS: dict[str, SimulatedTask] = {task.name: task for task in (PUSHT, ALOHA)}
"""All tasks by name."""


def task_named(name: str) -> SimulatedTask:
    """The task of this name; InputError if there is none."""
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


def task_in(document: Mapping[str, Any]) -> SimulatedTask:
    """The task of an evaluation JSON; one from before there was a choice does not say PushT."""
    return task_named(document.get("task", PUSHT.name))


def task_of(config: PolicyConfig, name: str | None = None) -> SimulatedTask:
    """The task whose observations and actions are those of the policy.

    Args:
        name: the one that it must be.

    Raises:
        InputError: if none fits, or the one that is named does not, with the reason.
    """
    reasons = {}
    for task in TASKS.values() if name is None else (task_named(name),):
        try:
            task.check_policy(config)
        except InputError as error:
            reasons[task.name] = str(error)
        else:
            return task
    if len(reasons) == 1:
        raise InputError(next(iter(reasons.values())))
    told = "; ".join(f"{task}: {reason}" for task, reason in reasons.items())
    raise InputError(f"no simulated task fits this checkpoint. {told}")
