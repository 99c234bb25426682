"""`para-policy calibrate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from para_policy.cli.common import ChainOptions, Precision, ThreadOptions
from para_policy.cli.inputs import OnObservations
from para_policy.errors import InputError
from para_policy.files import check_output_folder
from para_policy.stopping import keeping
from para_policy.terminal import show, stage

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.calibration import Calibration
    from para_policy.calibration.measure import Settings
    from para_policy.checkpoints.partial_calibration import PartialCalibration
    from para_policy.inference import EngineConfig
    from para_policy.samplers.deadline import LatencyTable


@dataclass(frozen=True, kw_only=True)
class Calibrate(ThreadOptions, ChainOptions, OnObservations):
    """Measure chord Jacobians, samplers and latency; written into calibration/ beside the checkpoint.

    On the second half of the observations, so that `bench`, which takes the first ones, tests what was
    not fitted."""

    tolerance: float = 1e-2
    """Largest residual that x0 and chord let pass, normalised action units."""
    cases: int = 256
    """Samples to measure errors on."""
    engine: str = "eager"
    """How network calls are timed: eager, compile, cuda-graph, openvino, onnxruntime; auto: the
    fastest one that works here, as policy_node takes. Its batch sizes and threads are measured, too."""
    precision: Precision = "float32"
    """Of the network's arithmetic in these calls."""
    device_only: bool = False
    """Time network calls only, for a checkpoint that is calibrated: seconds instead of minutes."""

    def __call__(self) -> None:
        from para_policy.adapters.preferences import remember
        from para_policy.calibration import measure
        from para_policy.checkpoints.calibration import FOLDER
        from para_policy.checkpoints.lerobot.read import is_lerobot
        from para_policy.checkpoints.load import load_policy
        from para_policy.inference import EngineConfig
        from para_policy.inference.device import expected_engine, set_threads
        from para_policy.lock import sole_writer

        settings = measure.Settings(self.tolerance, cases=self.cases)
        set_threads(self.threads)
        directory = self.directory()
        policy = load_policy(directory, device=self.device, calibrated=False, task=self.task)
        wanted = EngineConfig(self.engine, self.precision)
        expected_engine(wanted, policy.device)  # fails before the long work
        folder = directory / FOLDER
        check_output_folder(folder if folder.exists() else directory)
        with sole_writer(folder):
            calibration = (
                self._known(directory)
                if self.device_only
                else self._measure(policy, directory, settings)
            )
            stage("timing network calls")
            with keeping(
                lambda: f"'{folder}' lacks the latency of this device: --device-only adds it"
            ):
                table = _time(policy, directory, wanted, max(calibration.steps, 128))
        show(measure.table(calibration, table))
        show(f"calibration: {folder}")
        if is_lerobot(directory):
            show(f"read by LeRobot's programs: {remember(directory, calibration.tolerance)}")

    def _measure(self, policy: DiffusionPolicy, directory: Path, settings: Settings) -> Calibration:
        from para_policy.calibration.measure import calibrate
        from para_policy.checkpoints.calibration import FOLDER, save_calibration
        from para_policy.checkpoints.files import arrays_sha256, weights_sha256
        from para_policy.checkpoints.partial_calibration import PartialCalibration

        recorded = self.observed(
            policy, self.cases, shipped="second half", demonstrated="second half"
        )
        chain = policy.chain(self.scheduler, self.steps)
        sha256, schedule = weights_sha256(policy.weights()), policy.config.noise_scheduler
        task = None if policy.config.task is None else policy.config.task.text
        kind, steps = chain.key
        partial = PartialCalibration(
            directory / FOLDER / f"{kind}_{steps}.partial",
            {
                "weights_sha256": sha256,
                "noise_scheduler": schedule,
                "task": task,
                "fingerprint": list(chain.process.fingerprint),
                "settings": asdict(settings),
                "observations": arrays_sha256(recorded[name] for name in policy.config.inputs),
            },
        )
        with keeping(lambda: _progress(partial)):
            begun = partial.load()
            calibration = calibrate(chain, recorded, settings, begun=begun, keep=partial.keep)
        save_calibration(directory, calibration, sha256, schedule, task)
        partial.remove()
        return calibration

    def _known(self, directory: Path) -> Calibration:
        from para_policy.checkpoints.load import load_policy

        policy = load_policy(directory, task=self.task)
        chain = policy.chain(self.scheduler, self.steps)
        if chain.calibration is None:
            raise InputError(
                f"--device-only: '{directory}' is not calibrated for {chain}; leave the option out"
            )
        return chain.calibration


def _progress(partial: PartialCalibration) -> str:
    """What is kept of an unfinished calibration, for messages."""
    if not partial.path.exists():
        return "no sampler was measured yet"
    return f"the samplers measured so far are kept in '{partial.path}'; the same command goes on"


def _time(
    policy: DiffusionPolicy, directory: Path, wanted: EngineConfig, rows: int
) -> LatencyTable:
    """Latencies of calls of up to so many rows on an engine, and its best sizes; both are stored."""
    from para_policy.checkpoints.calibration import save_latency, save_sizes

    # Only now: samplers were measured with exact arithmetic.
    policy.runtime = policy.runtime.on(wanted)
    sizes = policy.runtime.measure_sizes()
    if sizes:
        save_sizes(directory, policy.runtime.table_key, sizes)
        policy.runtime = policy.runtime.on(replace(wanted, sizes=sizes))
    table = policy.runtime.measure_latency(rows)
    save_latency(directory, policy.runtime.table_key, table)
    return table
