"""`para-policy calibrate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from para_policy.cli.common import Precision, demonstrated
from para_policy.errors import InputError
from para_policy.files import check_output_folder

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.calibration import Calibration
    from para_policy.calibration.measure import Settings


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
    """Largest residual that x0 and chord let pass, normalised action units."""
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
        from para_policy.calibration import measure
        from para_policy.checkpoints.calibration import FOLDER, save_latency, save_sizes
        from para_policy.checkpoints.load import load_policy
        from para_policy.inference import EngineConfig
        from para_policy.inference.device import expected_engine, set_threads

        settings = measure.Settings(self.tolerance, cases=self.cases)
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
        Console().print(measure.table(calibration, table))
        print(f"calibration: {folder}")

    def _measure(self, policy: DiffusionPolicy, settings: Settings) -> Calibration:
        from para_policy.calibration.measure import calibrate, second_half
        from para_policy.checkpoints.calibration import save_calibration
        from para_policy.checkpoints.native import checkpoint_hash
        from para_policy.checkpoints.observations import read_observations

        if self.data is None:
            recorded = second_half(read_observations(self.checkpoint, policy.config))
        else:
            recorded = demonstrated(policy.config, self.config, self.data, self.cases)
        chain = policy.chain(self.scheduler, self.steps)
        calibration = calibrate(chain, recorded, settings)
        sha256 = checkpoint_hash(self.checkpoint)
        save_calibration(self.checkpoint, calibration, sha256, policy.config.noise_scheduler)
        return calibration

    def _known(self) -> Calibration:
        from para_policy.checkpoints.load import load_policy

        policy = load_policy(self.checkpoint)
        chain = policy.chain(self.scheduler, self.steps)
        if chain.calibration is None:
            raise InputError(
                f"--device-only: '{self.checkpoint}' is not calibrated for {chain}; "
                "leave the option out"
            )
        return chain.calibration
