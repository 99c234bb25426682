"""`para-policy bench`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from para_policy.cli.common import ChainOptions, EngineOptions, ThreadOptions
from para_policy.cli.inputs import OnObservations
from para_policy.files import check_output_file, write_text
from para_policy.stopping import deferred
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class Bench(ThreadOptions, EngineOptions, ChainOptions, OnObservations):
    """Compare samplers on the same observations and noise."""

    samplers: str = "sequential,paradigms,x0"
    """Names, separated by commas, with options after a colon: "x0,chord:tolerance=3e-3,window=none".
    "auto" is the fastest here; MODULE:FUNCTION or MODULE:FUNCTION:OPTION=VALUE makes a sampler of your
    own, as "benchmarks.peers:paradigms" makes diffusers' (see docs/extending.md)."""
    observations: int = 24
    """How many observations."""
    json: Path | None = None
    """Write the report here, too."""

    def __call__(self) -> None:
        from para_policy import comparison
        from para_policy.checkpoints.load import load_policy
        from para_policy.checkpoints.native import checkpoint_hash
        from para_policy.inference.device import set_threads
        from para_policy.policies.sampler_spec import split_samplers

        names = split_samplers(self.samplers)
        benchmark = comparison.Benchmark(names, self.scheduler, self.steps, self.observations)
        if self.json is not None:
            check_output_file(self.json)
        set_threads(self.threads)
        directory = self.directory()
        policy = load_policy(
            directory,
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            task=self.task,
        )
        recorded = self.observed(
            policy, self.observations, shipped="all", demonstrated="first half"
        )
        with deferred() as stop:
            report = {
                "checkpoint": self.named(),
                "checkpoint_sha256": checkpoint_hash(directory),
                "data": self.data,
                **comparison.make_report(benchmark, policy, recorded, stop),
            }
            show(comparison.table(report))
            if self.json is not None:
                write_text(self.json, json.dumps(report, indent=2) + "\n")
        if report["partial"]:
            where = "" if self.json is None else f" in '{self.json}'"
            stop.end(f"the report{where} is partial")
