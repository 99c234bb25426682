"""Commands that measure: bench, calibrate."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from para_policy import comparison
from para_policy.calibration import Calibration
from para_policy.calibration import measure as calibrate
from para_policy.checkpoints.calibration import FOLDER, save_calibration, save_latency, save_sizes
from para_policy.checkpoints.load import load_policy
from para_policy.checkpoints.native import checkpoint_hash
from para_policy.checkpoints.observations import read_observations
from para_policy.cli.common import demonstrated
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.config import Precision
from para_policy.inference.device import expected_engine, set_threads
from para_policy.policies.policy import DiffusionPolicy
from para_policy.policies.sampler_spec import split_samplers
from para_policy.terminal import check_output_file, check_output_folder, write_text


@dataclass(frozen=True)
class Bench:
    """Compare samplers on the same observations and noise."""

    checkpoint: Path
    """Checkpoint directory."""
    json: Path
    """Where the report goes."""
    samplers: str = "sequential,paradigms,x0"
    """Names, separated by commas, with options after a colon: "x0,chord:tolerance=3e-3,window=none".
    "auto" is the fastest here; "diffusers-paradigms", "-ddpm", "-ddim10", "-ddim16" are peers."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    observations: int = 24
    """How many of the observations that ship with the checkpoint."""
    device: str = "cpu"
    """Where the network runs."""
    engine: str = "eager"
    """How the network runs: eager, compile, cuda-graph, openvino, onnxruntime; auto: the fastest one
    that works here."""
    precision: Precision = "float32"
    """Of the network's arithmetic."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        names = split_samplers(self.samplers)
        benchmark = comparison.Benchmark(names, self.scheduler, self.steps, self.observations)
        check_output_file(self.json)
        set_threads(self.threads)
        policy = load_policy(
            self.checkpoint, device=self.device, engine=self.engine, precision=self.precision
        )
        recorded = read_observations(self.checkpoint, policy.config)
        report = {
            "checkpoint": str(self.checkpoint),
            "checkpoint_sha256": checkpoint_hash(self.checkpoint),
            **comparison.make_report(benchmark, policy, recorded),
        }
        write_text(self.json, json.dumps(report, indent=2) + "\n")
        Console().print(comparison.table(report))


@dataclass(frozen=True)
class Calibrate:
    """Measure chord Jacobians, samplers and latency; written beside the checkpoint."""

    checkpoint: Path
    """Checkpoint directory; receives calibration/."""
    data: Path | None = None
    """Demonstrations to take observations from, with --config; by default the second half of those
    that ship with the checkpoint."""
    config: Path = Path("config/training/pusht_state.yaml")
    """Training configuration that says how observations are read from --data."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    tolerance: float = 1e-2
    """Largest defect that x0 and chord let pass, normalised action units."""
    cases: int = 256
    """Samples to measure errors on."""
    device: str = "cpu"
    """Where the network runs."""
    engine: str = "eager"
    """How network calls are timed: eager, compile, cuda-graph, openvino, onnxruntime; auto: the
    fastest one that works here, as policy_node takes. Its batch sizes and threads are measured, too."""
    precision: Precision = "float32"
    """Of the network's arithmetic in these calls."""
    device_only: bool = False
    """Time network calls only, for a checkpoint that is calibrated: seconds instead of minutes."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        settings = calibrate.Settings(self.tolerance, cases=self.cases)
        set_threads(self.threads)
        policy = load_policy(self.checkpoint, device=self.device, calibrated=False)
        wanted = EngineConfig(self.engine, self.precision)
        expected_engine(wanted, policy.device)  # fails before the long work
        folder = self.checkpoint / FOLDER
        check_output_folder(folder if folder.exists() else self.checkpoint)
        calibration = self._known() if self.device_only else self._measure(policy, settings)
        policy.runtime = policy.runtime.on(wanted)  # samplers were measured with exact arithmetic
        sizes = policy.runtime.measure_sizes()
        if sizes:
            save_sizes(self.checkpoint, policy.runtime.device_key, sizes)
            policy.runtime = policy.runtime.on(replace(wanted, sizes=sizes))
        table = policy.runtime.measure_latency(max(calibration.steps, 128))
        save_latency(self.checkpoint, policy.runtime.device_key, table)
        Console().print(calibrate.table(calibration, table))
        print(f"calibration: {folder}")

    def _measure(self, policy: DiffusionPolicy, settings: calibrate.Settings) -> Calibration:
        if self.data is None:
            recorded = calibrate.second_half(read_observations(self.checkpoint, policy.config))
        else:
            recorded = demonstrated(policy.config, self.config, self.data, self.cases)
        chain = policy.chain(self.scheduler, self.steps)
        calibration = calibrate.calibrate(chain, recorded, settings)
        sha256 = checkpoint_hash(self.checkpoint)
        save_calibration(self.checkpoint, calibration, sha256, policy.config.noise_scheduler)
        return calibration

    def _known(self) -> Calibration:
        policy = load_policy(self.checkpoint)
        chain = policy.chain(self.scheduler, self.steps)
        if chain.calibration is None:
            raise InputError(
                f"--device-only: '{self.checkpoint}' is not calibrated for {chain}; "
                "leave the option out"
            )
        return chain.calibration
