"""Command `para-policy evaluate`, also `python -m sim.evaluate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from para_policy.cli.common import ChainOptions, EngineOptions
from para_policy.cli.inputs import OfCheckpoint
from para_policy.cli.main import main
from para_policy.terminal import notes


@dataclass(frozen=True, kw_only=True)
class Evaluate(EngineOptions, ChainOptions, OfCheckpoint):
    """Play simulated episodes with several samplers, paired by start state and noise, and compare.

    An interrupted run goes on where it stopped when the same command is given again.
    """

    json: Path
    """Where the results go."""
    samplers: str = "sequential,x0"
    """Names, separated by commas, with options after a colon ("sequential,paradigms:window=10"), each
    as NAME, NAME+guess (starts from the last chunk: the same
    answer) or NAME+guess+noise (also shifts the last chunk's noise along the horizon: chunks that
    agree better); sequential and asd take no guess, so only +noise. At the end +redrawn (noise of another
    episode) or +perturbed1e-2 (so much is added to each chunk) make control arms: what a harmless change
    does. A run is compared with the sequential run of the same noise, if there is one, or with
    sequential, or the first."""
    episodes: int = 200
    """Episodes per sampler."""
    seed: int = 100000
    """Start state and noise of the first episode; episode i has seed + i."""
    env: str | None = None
    """Simulator: pusht or aloha (default: what the checkpoint's inputs and actions fit)."""
    margin: float = 0.02
    """Equivalence margin of the mean max reward."""
    batch: int = 25
    """Episodes that share each call of the network."""
    jobs: int | None = None
    """Processes, one by default; the CPU threads are divided among them. With --cluster local: batches
    at once, by default as many as there are CPUs."""
    cluster: str | None = None
    """Play on Ray: local starts it on this machine for as long as it takes; auto, on a machine of a
    cluster, and HOST:PORT use one that runs. Each batch takes one CPU and one thread, and with --device
    cuda a GPU. A batch whose worker is lost is played again. See docs/scale.md."""
    check_errors: bool = False
    """Solve every chunk again with `sequential` and report the errors; multiplies the run time."""
    latency_chunks: int = 50
    """Chunks for the latency of one robot (batch 1), measured after the episodes; 0: none."""
    report: Path | None = None
    """Self-contained HTML report."""
    video: Path | None = None
    """Folder for mp4 videos with the predicted chunk drawn over the scene."""
    video_episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Show the first N episodes of each sampler, and the samplers side by side."""

    def __call__(self) -> None:
        from sim.evaluation.run import evaluate

        evaluate(self, notes())
        notes().print(f"Results: {self.json}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
