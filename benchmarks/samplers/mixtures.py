"""Errors and bounds on mixtures with exact velocities: `python -m benchmarks.samplers.mixtures --help`.

Euler steps of flow matching, where they are hardest to stop: a sample that begins between two modes goes
to one or the other, and small errors before that are large ones after it. Calibrated as `accelerate` does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from torch import Tensor

from para_policy import Denoiser, Noise, Process, samplers
from para_policy.adapters.call import Call
from para_policy.adapters.measure import measure
from para_policy.terminal import run
from tests.problems import Mixture, flow_network

_CHUNK = 250


@dataclass(frozen=True)
class Options:
    """1,000 samples with two tolerances take some minutes on one core."""

    shape: tuple[int, int] = (16, 2)
    """Horizon and numbers of an action."""
    modes: int = 6
    """Of the mixture."""
    std: float = 0.1
    """Of each mode."""
    steps: int = 100
    """Euler steps."""
    cases: int = 1000
    """Samples."""
    seed: int = 0
    """Of the mixture."""
    tolerances: tuple[float, ...] = (1e-2, 1e-3)
    """Of each sampler."""


def table(options: Options) -> list[str]:
    """Rows in Markdown: what each sampler is off by, in tolerances, and how often its bound is broken."""
    exact = flow_network(Mixture(options.modes, options.std, options.seed))
    process = Process.from_flow(np.linspace(1, 0, options.steps + 1))

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return exact(x, t)

    nothing = torch.zeros(1, 1, dtype=torch.float64)
    call = Call((1, *options.shape), torch.float64, nothing.device, nothing)
    rows = [
        "| sampler | tolerance | rounds mean / max | rows | error / tolerance median / p99 / max "
        "| above 1 | above 10 | above its bound |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for tolerance in options.tolerances:
        calibration = measure(network, [call], process, "flow_match_euler", tolerance)
        for name in ("x0", "chord", "collocation"):
            sampler = calibration.sampler(name, {"tolerance": tolerance})
            found: list[Tensor] = []
            for first in range(0, options.cases, _CHUNK):
                seeds = range(first, min(first + _CHUNK, options.cases))
                noise = Noise.from_seeds(seeds, options.shape, options.steps, dtype=torch.float64)
                denoiser = Denoiser(network, nothing.expand(len(seeds), 1))
                expected = samplers.get("sequential")(denoiser, process, noise).sample
                result = sampler(denoiser, process, noise)
                error = (result.sample - expected).flatten(1).abs().amax(dim=1)
                assert result.error_bound is not None, "of a calibration"
                broken = error > result.error_bound
                found.append(torch.stack([error / tolerance, result.rounds, result.evals, broken]))
            error, rounds, evals, broken = torch.cat(found, dim=1)
            bound = "no bound" if name == "x0" else str(int(broken.sum()))
            spread = [float(error.quantile(q)) for q in (0.5, 0.99, 1.0)]
            rows.append(
                f"| `{name}` | {tolerance:g} "
                f"| {rounds.mean():.1f} / {int(rounds.max())} | {evals.mean():.0f} "
                f"| {' / '.join(f'{value:.2g}' for value in spread)} "
                f"| {int((error > 1).sum())} | {int((error > 10).sum())} | {bound} |"
            )
    return rows


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    sys.exit(run(lambda: print("\n".join(table(chosen)))))
