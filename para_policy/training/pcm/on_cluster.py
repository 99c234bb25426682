"""Trajectories that a Ray cluster solves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from para_policy import cluster
from para_policy.checkpoints.carried import CarriedCheckpoint
from para_policy.checkpoints.load import load_policy
from para_policy.errors import InputError
from para_policy.training.pcm.problem import Batch, Problem, Rows, Settings
from para_policy.versions import check_versions, versions


def check_cluster(address: str, threads: int | None, device: str) -> None:
    """Raise InputError for options that do not go together, or an address where nobody listens."""
    cluster.check_address(address)
    cluster.gpus_of(device)
    if threads not in (None, 1):
        raise InputError(
            f"--threads {threads} is for this machine; leave it out with --cluster {address}, where each "
            "batch takes one"
        )


def solve_on_cluster(
    address: str,
    checkpoint: Path,
    device: str,
    task: str | None,
    settings: Settings,
    batches: Iterable[Batch],
) -> Generator[tuple[Batch, Rows]]:
    """Solve batches on a cluster, each on one CPU and one thread; yield them in their order.

    Args:
        address: as `cluster.connected`.
        checkpoint: directory of the policy; its files travel.
        device: "cpu", or "cuda" for a GPU of its own for each batch.
        task: as `load_policy`.

    Raises:
        InputError: as `cluster.connected`, or for a worker that has other versions of packages.
        WorkerLostError: as `cluster.tasks`.
    """
    begin = _Solver(CarriedCheckpoint.of(checkpoint), device, task, settings, versions())
    gpus = cluster.gpus_of(device)
    with cluster.connected(address, gpus=gpus):
        yield from cluster.tasks(begin, batches, gpus=gpus, ordered=True)


@dataclass(frozen=True)
class _Solver:
    """What a worker makes of its policy."""

    checkpoint: CarriedCheckpoint
    device: str
    task: str | None
    settings: Settings
    expected: Mapping[str, str]

    def __call__(self) -> Callable[[Batch, cluster.Report], Rows]:
        check_versions(self.expected)
        torch.set_num_threads(1)
        with self.checkpoint.unpacked() as directory:
            policy = load_policy(directory, device=self.device, task=self.task)
        wanted = self.settings
        problem = Problem.of(policy, wanted.scheduler, wanted.steps, wanted.splitting)
        return lambda batch, report: problem.solve(policy, batch, wanted.rounds)
