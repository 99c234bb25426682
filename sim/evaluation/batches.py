"""Batches of episodes as tasks, played here or in worker processes."""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from para_policy import load_policy
from para_policy.errors import ParaPolicyError
from para_policy.inference.config import Precision
from para_policy.memory import check_memory
from para_policy.policies.policy import DiffusionPolicy
from sim.evaluation.variants import Variant
from sim.tasks.choice import task_of
from sim.tasks.episode import Episode
from sim.tasks.rollout import Progress
from sim.tasks.task import SimulatedTask

POLL_S = 0.2
_WORKER_BYTES = 300 * 2**20
"""Of a process with torch, before it has loaded a policy."""


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


class WorkerLostError(ParaPolicyError):
    """A worker process has ended before its work."""


def play_in_processes(
    sampling: Sampling, tasks: Sequence[Task], jobs: int, on_progress: Progress
) -> Iterator[tuple[Task, list[Episode]]]:
    """Play the tasks in `jobs` processes that share the CPU threads; yield each as it finishes.

    Raises:
        WorkerLostError: when a process was killed, after all that was played by then.
    """
    jobs = min(jobs, len(tasks))
    check_memory(f"--jobs {jobs}", jobs * _WORKER_BYTES)
    context = multiprocessing.get_context("spawn")
    progress: multiprocessing.Queue[int] = context.Queue()
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(
        jobs, context, initializer=_start_worker, initargs=(sampling, threads, progress.put, stop)
    ) as pool:
        pending: dict[Future[list[Episode]], Task] = {
            pool.submit(_play_in_worker, task): task for task in tasks
        }
        try:
            while pending:
                done, _ = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
                _drain(progress, on_progress)
                # A process that is gone fails all that is pending: first what was played before.
                for future in sorted(done, key=lambda one: one.exception() is not None):
                    yield pending.pop(future), future.result()
            _drain(progress, on_progress)
        except BrokenProcessPool as error:
            raise WorkerLostError(
                f"a process of --jobs {jobs} has ended before its work (killed, or out of memory); "
                "fewer --jobs take less memory"
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """What a worker process keeps between tasks."""

    policy: DiffusionPolicy
    sampling: Sampling
    report: Progress


class StoppedError(Exception):
    """The parent process was interrupted."""


def _start_worker(sampling: Sampling, threads: int, put: Callable[[int], None], stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets `stop`
    torch.set_num_threads(threads)

    def report(steps: int) -> None:
        if stop.is_set():
            raise StoppedError
        put(steps)

    _Worker.sampling = sampling
    _Worker.policy = sampling.load()
    _Worker.report = staticmethod(report)


def _play_in_worker(task: Task) -> list[Episode]:
    return play(_Worker.policy, _Worker.sampling, task, _Worker.report)


def _drain(progress: multiprocessing.Queue[int], on_progress: Progress) -> None:
    while True:
        try:
            on_progress(progress.get_nowait())
        except queue.Empty:
            return
