"""Batches of episodes as tasks: what a place where they are played is given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from para_policy import load_policy
from para_policy.inference.config import Precision
from para_policy.memory import check_memory
from para_policy.policies.policy import DiffusionPolicy
from sim.evaluation.variants import Variant
from sim.tasks.choice import task_of
from sim.tasks.episode import Episode
from sim.tasks.rollout import Progress
from sim.tasks.task import SimulatedTask


@dataclass(frozen=True)
class Task:
    """One vectorised batch of episodes with one sampler."""

    sampler: str
    """Name of a `Variant`."""
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How every task samples; `None` means what the checkpoint says."""

    checkpoint: Path
    device: str = "cpu"
    engine: str = "eager"
    precision: Precision = "float32"
    scheduler: str | None = None
    steps: int | None = None
    check_errors: bool = False
    """Whether every chunk is solved again with `sequential`, to measure its error."""
    task: str | None = None
    """Name of the simulated task; None for the one that fits the checkpoint."""

    def load(self) -> DiffusionPolicy:
        """The policy, ready to run."""
        policy = load_policy(
            self.checkpoint, device=self.device, engine=self.engine, precision=self.precision
        )
        policy.warm_up()
        return policy

    def simulated(self, policy: DiffusionPolicy) -> SimulatedTask:
        """What is played; InputError if the policy does not fit it."""
        return task_of(policy.config, self.task)


def make_tasks(samplers: Sequence[str], seed: int, episodes: int, batch: int) -> list[Task]:
    """All tasks, with the samplers of one batch next to each other: a stopped run is paired too."""
    kept = 4096  # bytes of an episode at least: its states, actions and chunks
    check_memory(f"--episodes {episodes}", episodes * len(samplers) * kept)
    seeds = range(seed, seed + episodes)
    batches = [tuple(seeds[first : first + batch]) for first in range(0, episodes, batch)]
    return [Task(sampler, part) for part in batches for sampler in samplers]


def paired_runs(
    tasks: Sequence[Task], finished: Mapping[Task, Sequence[Episode]]
) -> dict[str, list[Episode]]:
    """Episodes of each sampler in the order of their seeds, up to the first batch that one of them
    has not finished; empty if that is the first."""
    unfinished = {task.seeds for task in tasks if task not in finished}
    runs: dict[str, list[Episode]] = {}
    for task in itertools.takewhile(lambda task: task.seeds not in unfinished, tasks):
        runs.setdefault(task.sampler, []).extend(finished[task])
    return runs


def play(
    policy: DiffusionPolicy, sampling: Sampling, task: Task, on_progress: Progress | None = None
) -> list[Episode]:
    """The episodes of one task."""
    variant = Variant.parse(task.sampler)
    return variant.play(
        policy,
        task.seeds,
        sampling.scheduler,
        sampling.steps,
        task=sampling.simulated(policy),
        check_errors=sampling.check_errors and variant.approximates,
        on_progress=on_progress,
    )
