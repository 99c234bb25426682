"""Batches of episodes in worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from para_policy.children import end_with_parent
from para_policy.errors import WorkerLostError
from para_policy.memory import check_memory
from para_policy.policies.policy import DiffusionPolicy
from sim.evaluation.batches import Sampling, Task, play
from sim.tasks.episode import Episode
from sim.tasks.rollout import Progress

POLL_S = 0.2
WORKER_BYTES = 300 * 2**20
"""Of a process with torch, before it has loaded a policy."""


def play_in_processes(
    sampling: Sampling, tasks: Sequence[Task], jobs: int, on_progress: Progress
) -> Iterator[tuple[Task, list[Episode]]]:
    """Play the tasks in `jobs` processes that share the CPU threads; yield each as it finishes.

    Raises:
        WorkerLostError: when a process was killed, after all that was played by then.
    """
    jobs = min(jobs, len(tasks))
    check_memory(f"--jobs {jobs}", jobs * WORKER_BYTES)
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
    end_with_parent()
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
