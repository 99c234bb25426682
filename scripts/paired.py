"""Two checkouts of the project, timed solve by solve: `python -m scripts.paired OLD NEW`.

Both run at once, but only one of them computes: the same chunk with the same seed is solved in
one, then in the other, and which is first alternates. What slows the machine for seconds slows
both, so that the ratio holds to about a hundredth where two runs one after the other differ by a
tenth. Each checkout needs its own `.venv`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from para_policy.comparison.summary import median_interval

CASES = {
    ("ddpm", 100): (
        "sequential",
        "paradigms",
        "parataa",
        "x0",
        "chord",
        "collocation",
        "pcm",
        "asd",
    ),
    ("ddim", 16): ("sequential", "paradigms", "parataa", "x0", "chord", "collocation", "pcm"),
}

SOLVE_ON_REQUEST = """
import sys, time
import numpy as np
import torch
from para_policy import load_policy

torch.set_num_threads(int(sys.argv[1]))
policy = load_policy(sys.argv[2])
observations = np.random.default_rng(0).uniform(50, 450, (1000, 2, 18))
inputs = policy.config.inputs
samplers = {}
for line in sys.stdin:
    scheduler, steps, name, seed = line.split()
    steps, seed = int(steps), int(seed)
    key = scheduler, steps, name
    if key not in samplers:
        samplers[key] = policy.sampler(name, scheduler=scheduler, steps=steps)
    values = observations[seed]
    obs, column = {}, 0
    for field, shape in inputs.items():
        width = int(np.prod(shape))
        obs[field] = values[:, column:column + width].reshape(2, *shape)
        column += width
    started = time.perf_counter()
    policy.sample(obs, sampler=samplers[key], scheduler=scheduler, steps=steps, seed=seed)
    print("solved", time.perf_counter() - started, flush=True)
"""


class Checkout:
    """A process that solves one chunk when it is asked to.

    Args:
        root: of the checkout.
        checkpoint: relative to it.
        threads: of the network.
    """

    def __init__(self, root: Path, checkpoint: str, threads: int) -> None:
        python = root / ".venv" / "bin" / "python"
        self.process = subprocess.Popen(
            [python, "-c", SOLVE_ON_REQUEST, str(threads), checkpoint],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def solve(self, scheduler: str, steps: int, sampler: str, seed: int) -> float:
        """Return the seconds that a solve took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(scheduler, steps, sampler, seed, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("solved"):
                return float(line.split()[1])
        sys.exit(f"{self.process.args!r} ended; see its error above")


def main() -> None:
    """Print, for each sampler, how the time of NEW relates to that of OLD."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--checkpoint", default="checkpoints/pusht_state")
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    checkouts = [Checkout(root, args.checkpoint, args.threads) for root in (args.old, args.new)]
    print(f"{args.checkpoint}, CPU, {args.threads} thread(s), float32, {args.chunks} chunks each")
    for (scheduler, steps), samplers in CASES.items():
        for sampler in samplers:
            for checkout in checkouts:
                for seed in (0, 1):  # warm
                    checkout.solve(scheduler, steps, sampler, seed)
            times = np.empty((args.chunks, 2))
            for chunk in range(args.chunks):
                for which in (0, 1) if chunk % 2 else (1, 0):
                    times[chunk, which] = checkouts[which].solve(scheduler, steps, sampler, chunk)
            ratios = times[:, 1] / times[:, 0]
            interval = [round(end, 3) for end in median_interval(ratios) or ()]
            old, new = np.median(times, axis=0) * 1e3
            print(
                f"{scheduler} {steps:3d} {sampler:10s} old {old:7.1f} ms, new {new:7.1f} ms,"
                f" new/old {np.median(ratios):.3f} {interval}",
                flush=True,
            )


if __name__ == "__main__":
    main()
