"""`para-policy trajectories`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from para_policy.cli.common import ChainOptions, ThreadOptions
from para_policy.cli.inputs import OnObservations
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class MakeTrajectories(ThreadOptions, ChainOptions, OnObservations):
    """Solve chunks in parallel and store the iterates: the data of `distill`. Resumes by itself.

    From all demonstrations of --data; without, from the second half of the observations beside the
    checkpoint, as `bench` measures on the first ones."""

    output: Path
    """Zarr group that receives the trajectories."""
    splitting: str = "chord"
    """Linear part of the sweeps: identity (the paper's), x0 or chord (needs a calibration)."""
    rounds: int = 2
    """Iterates to store for each trajectory, the start included."""
    count: int = 2048
    """Trajectories."""
    cluster: str | None = None
    """Solve on Ray, as `para-policy evaluate --cluster`: local, auto or HOST:PORT. Each batch takes one CPU
    and one thread, and with --device cuda a GPU. See docs/scale.md."""

    def __call__(self) -> None:
        from para_policy.checkpoints.load import load_policy
        from para_policy.checkpoints.native import checkpoint_hash
        from para_policy.inference.device import set_threads
        from para_policy.training.pcm import trajectories
        from para_policy.training.pcm.on_cluster import check_cluster, solve_on_cluster
        from para_policy.training.pcm.problem import Settings

        settings = Settings(self.scheduler, self.steps, self.splitting, self.rounds, self.count)
        if self.cluster is not None:
            check_cluster(self.cluster, self.threads, self.device)
        set_threads(self.threads)
        directory = self.directory()
        # Workers of a cluster have their devices.
        device = self.device if self.cluster is None else "cpu"
        policy = load_policy(directory, device=device, task=self.task)
        recorded = self.observed(policy, self.count, shipped="second half", demonstrated="all")
        sha256 = checkpoint_hash(directory)
        place = None
        if self.cluster is not None:
            place = partial(
                solve_on_cluster, self.cluster, directory, self.device, self.task, settings
            )
        path = trajectories.generate(policy, recorded, settings, self.output, sha256, place)
        show(f"trajectories: {path}")
