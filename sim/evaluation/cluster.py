"""Batches of episodes on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from para_policy import cluster
from para_policy.checkpoints.carried import CarriedCheckpoint
from para_policy.errors import InputError
from para_policy.memory import check_memory
from para_policy.versions import check_versions
from sim.evaluation.batches import Sampling, Task, play
from sim.evaluation.processes import WORKER_BYTES
from sim.tasks.episode import Episode
from sim.tasks.rollout import Progress


def check_cluster(address: str, jobs: int | None, device: str) -> None:
    """Raise InputError for options that do not go together, or an address where nobody listens."""
    cluster.check_address(address)
    if jobs is not None:
        check_memory(f"--jobs {jobs}", jobs * WORKER_BYTES)
    if address != cluster.LOCAL and jobs is not None:
        raise InputError(
            f"--jobs {jobs} is for this machine; leave it out with --cluster {address}, which plays as "
            "many batches at once as it has CPUs or GPUs"
        )
    cluster.gpus_of(device)


def play_on_cluster(
    address: str,
    workers: int | None,
    sampling: Sampling,
    expected: Mapping[str, str],
    tasks: Sequence[Task],
    on_progress: Progress,
) -> Iterator[tuple[Task, list[Episode]]]:
    """Play the tasks on a cluster, each on one CPU and one thread; yield each as it finishes.

    Args:
        address, workers: as `cluster.connected`.
        expected: `versions` here; a worker that has others is refused.

    Raises:
        InputError: as `cluster.connected`, or for a worker that has other versions of packages.
        WorkerLostError: as `cluster.tasks`.
    """
    begin = _Player(sampling, CarriedCheckpoint.of(sampling.checkpoint), expected)
    gpus = cluster.gpus_of(sampling.device)
    with cluster.connected(address, workers, gpus):
        yield from cluster.tasks(begin, tasks, gpus=gpus, on_progress=on_progress)


@dataclass(frozen=True)
class _Player:
    """What a worker makes of its policy."""

    sampling: Sampling
    checkpoint: CarriedCheckpoint
    expected: Mapping[str, str]

    def __call__(self) -> Callable[[Task, Progress], list[Episode]]:
        check_versions(self.expected)
        torch.set_num_threads(1)
        with self.checkpoint.unpacked() as directory:
            policy = replace(self.sampling, checkpoint=directory).load()
        return partial(play, policy, self.sampling)
