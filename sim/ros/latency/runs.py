"""Runs of the latency experiment: episodes that have been played, and playing the rest in parallel."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from rich.console import Console

from para_policy.errors import ParaPolicyError
from para_policy.stopping import keeping
from para_policy.terminal import progress_bars, run
from sim.evaluation.batches import Task
from sim.evaluation.partial import PartialResults
from sim.ros.latency.conditions import Playable, RunArguments
from sim.tasks.episode import Episode

_POLL_S = 5.0
_PATIENCE_S = 600.0
"""How long a block of episodes waits for a machine that is busy with something else."""


class Runs:
    """Finished episodes by the name of their condition and seed, each kept in a file at once."""

    def __init__(self, partial: PartialResults[Episode], names: Sequence[str]) -> None:
        self._partial = partial
        self._episodes: dict[str, dict[int, Episode]] = {name: {} for name in names}
        for task, episodes in partial.load().items():
            self._episodes[task.sampler] |= {episode.seed: episode for episode in episodes}

    def missing(self, name: str, seeds: Sequence[int]) -> list[int]:
        return [seed for seed in seeds if seed not in self._episodes[name]]

    def keep(self, name: str, episode: Episode) -> None:
        self._episodes[name][episode.seed] = episode
        self._partial.add(Task(name, (episode.seed,)), [episode])

    def finished(self, seeds: Sequence[int]) -> dict[str, list[Episode]]:
        """All episodes, in the order of `seeds`."""
        return {name: [of[seed] for seed in seeds] for name, of in self._episodes.items()}


def play_missing(
    args: RunArguments,
    conditions: Mapping[str, Playable],
    runs: Runs,
    seeds: Sequence[int],
    console: Console,
) -> list[float]:
    """Play what is missing; return the load average of the machine every few seconds meanwhile.

    Raises:
        ParaPolicyError: when a pipeline fails; the others are stopped then.
    """
    blocks = list(_blocks(args, conditions, runs, seeds))
    players = _Players(args)
    load: list[float] = []
    with ThreadPoolExecutor(args.jobs) as pool, progress_bars(console) as progress:
        bar = progress.add_task("playing episodes", total=sum(len(block) for _, block in blocks))
        pending: dict[Future[list[Episode]], str] = {
            pool.submit(players.play, conditions[name], block): name for name, block in blocks
        }
        try:
            while pending:
                done, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                load.append(round(os.getloadavg()[0], 2))
                for future in done:
                    name = pending.pop(future)
                    for episode in future.result():
                        runs.keep(name, episode)
                        console.print(_line(name, episode, load[-1]), soft_wrap=True)
                        progress.advance(bar)
        finally:
            players.stop()
            pool.shutdown(wait=True, cancel_futures=True)
    return load


def run_resumable(command: Callable[[], None]) -> int:
    """Run a command that keeps what it has; the exit code."""

    def resumable() -> None:
        with keeping(lambda: "the same command goes on where it stopped"):
            command()

    return run(resumable)


class _Players:
    """Pipelines that run at the same time, each in a ROS domain of its own."""

    def __init__(self, args: RunArguments) -> None:
        self._args = args
        self._stopped = threading.Event()
        self._domains: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(args.jobs):
            self._domains.put(args.domain_id + number)

    def stop(self) -> None:
        self._stopped.set()

    def play(self, condition: Playable, seeds: Sequence[int]) -> list[Episode]:
        # ROS is imported when a run begins, so that the rest works without it.
        from sim.ros.latency.real_time import play_in_real_time

        self._wait_for_the_machine()
        domain_id = self._domains.get()
        try:
            return play_in_real_time(self._args, condition, domain_id, seeds, self._check)
        finally:
            self._domains.put(domain_id)

    def _wait_for_the_machine(self) -> None:
        end = time.monotonic() + _PATIENCE_S
        self._check()
        while os.getloadavg()[0] > self._args.max_load and time.monotonic() < end:
            self._stopped.wait(_POLL_S)
            self._check()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise ParaPolicyError("stopped, as another pipeline has failed")


def _blocks(
    args: RunArguments, conditions: Mapping[str, Playable], runs: Runs, seeds: Sequence[int]
) -> Iterator[tuple[str, list[int]]]:
    """What is missing; the conditions take turns, so that a stopped run is paired, too.

    Their order differs from block to block: a machine that gets busier must not harm the last most.
    """
    for first in range(0, len(seeds), args.block):
        order = random.Random(seeds[first]).sample(list(conditions), len(conditions))
        for name in order:
            if missing := runs.missing(name, seeds[first : first + args.block]):
                yield name, missing


def _line(name: str, episode: Episode, load: float) -> str:
    latency_s = sorted(chunk.batch_wall_s for chunk in episode.chunks)[len(episode.chunks) // 2]
    return (
        f"{name}, seed {episode.seed}: max reward {episode.max_reward:.3f}, {episode.steps} steps, "
        f"{len(episode.chunks)} chunks of {1e3 * latency_s:.0f} ms (median), load {load:.1f}"
    )
