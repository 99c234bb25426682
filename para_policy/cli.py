"""`para-policy`: train, benchmark and inspect policies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

from para_policy import bench, calibrate
from para_policy.choice import split_samplers
from para_policy.command_line import check_output_file, check_output_folder, run, write_text
from para_policy.device import device_description, set_threads
from para_policy.errors import InputError
from para_policy.formats import consistency, native
from para_policy.formats.calibration import FOLDER, save_calibration, save_latency
from para_policy.policies.config import PolicyConfig


@dataclass(frozen=True)
class Train:
    """Train a diffusion policy by behaviour cloning."""

    config: Path
    """Training configuration, such as configs/pusht_state.yaml."""
    output: Path = Path("outputs/train")
    """Receives checkpoint/, state/ (to resume), metrics.jsonl and curves.png."""
    data: Path | None = None
    """Demonstrations, instead of data.path of the configuration."""
    steps: int | None = None
    """Optimiser steps, instead of training.steps of the configuration."""
    device: str | None = None
    """Device "cpu" forces the CPU; by default every device that accelerate finds is used."""
    resume: bool = False
    """Continue the run in --output."""

    def __call__(self) -> None:
        with _extra("training"):
            from para_policy.training import behaviour_cloning
        config = behaviour_cloning.TrainConfig.from_yaml(self.config)
        if self.data is not None:
            config = config.model_copy(
                update={"data": config.data.model_copy(update={"path": self.data})}
            )
        if self.steps is not None:
            if self.steps < 1:
                raise InputError(f"--steps is {self.steps}; expected at least 1")
            training = config.training.model_copy(update={"steps": self.steps})
            config = config.model_copy(update={"training": training})
        checkpoint = behaviour_cloning.train(
            config, self.output, resume=self.resume, device=self.device
        )
        print(f"checkpoint: {checkpoint}")


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
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        names = split_samplers(self.samplers)
        benchmark = bench.Benchmark(names, self.scheduler, self.steps, self.observations)
        check_output_file(self.json)
        set_threads(self.threads)
        policy = native.load_policy(self.checkpoint, device=self.device)
        observations = native.read_observations(self.checkpoint)
        report = {
            "checkpoint": str(self.checkpoint),
            "checkpoint_sha256": native.checkpoint_hash(self.checkpoint),
            **bench.make_report(benchmark, policy, observations),
        }
        write_text(self.json, json.dumps(report, indent=2) + "\n")
        Console().print(bench.table(report))


@dataclass(frozen=True)
class Calibrate:
    """Measure chord Jacobians, samplers and latency; written beside the checkpoint."""

    checkpoint: Path
    """Checkpoint directory; receives calibration/."""
    data: Path | None = None
    """Demonstrations to take observations from, with --config; by default the second half of those
    that ship with the checkpoint."""
    config: Path = Path("configs/pusht_state.yaml")
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
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        settings = calibrate.Settings(self.scheduler, self.steps, self.tolerance, cases=self.cases)
        set_threads(self.threads)
        policy = native.load_policy(self.checkpoint, device=self.device, calibrated=False)
        folder = self.checkpoint / FOLDER
        check_output_folder(folder if folder.exists() else self.checkpoint)
        if self.data is None:
            observations = calibrate.second_half(native.read_observations(self.checkpoint))
        else:
            observations = _demonstrated(policy.config, self.config, self.data, self.cases)
        calibration = calibrate.calibrate(policy, observations, settings)
        sha256 = native.checkpoint_hash(self.checkpoint)
        path = save_calibration(self.checkpoint, calibration, sha256, policy.config.noise_scheduler)
        table = policy.measure_latency(max(calibration.steps, 128))
        save_latency(self.checkpoint, device_description(policy.device), table)
        Console().print(calibrate.table(calibration, table))
        print(f"calibration: {path}")


@dataclass(frozen=True)
class MakeTrajectories:
    """Solve chunks in parallel and store the iterates: the data of `distill`. Resumes by itself."""

    checkpoint: Path
    """Checkpoint directory."""
    data: Path
    """Demonstrations to take observations from."""
    output: Path
    """Zarr group that receives the trajectories."""
    config: Path = Path("configs/pusht_state.yaml")
    """Training configuration that says how observations are read from --data."""
    scheduler: str | None = None
    """ddpm, ddim or dpmsolver++; by default the one the policy was trained with."""
    steps: int | None = None
    """Denoising steps; by default all training steps."""
    splitting: str = "chord"
    """Linear part of the sweeps: identity (the paper's), x0 or chord (needs a calibration)."""
    rounds: int = 2
    """Iterates to store for each trajectory, the start included."""
    count: int = 2048
    """Trajectories."""
    device: str = "cpu"
    """Where the network runs."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""

    def __call__(self) -> None:
        with _extra("making trajectories"):
            from para_policy.training import trajectories
        settings = trajectories.Settings(
            self.scheduler, self.steps, self.splitting, self.rounds, self.count
        )
        set_threads(self.threads)
        policy = native.load_policy(self.checkpoint, device=self.device)
        observations = _demonstrated(policy.config, self.config, self.data, self.count)
        sha256 = native.checkpoint_hash(self.checkpoint)
        path = trajectories.generate(policy, observations, settings, self.output, sha256)
        print(f"trajectories: {path}")


@dataclass(frozen=True)
class Distill:
    """Fine-tune a Picard Consistency Model: the network that begins the solve of `pcm`."""

    checkpoint: Path
    """Checkpoint directory of the base model."""
    data: Path
    """Trajectories from `para-policy trajectories`."""
    output: Path = Path("outputs/distill")
    """Receives checkpoint/ (the PCM weights), state/ (to resume), metrics.jsonl and curves.png."""
    objective: Literal["picard", "own"] = "own"
    """Iterates to train on: those of the base model (the paper's), or the network's own."""
    rank: int = 16
    """Of the low-rank update of each layer (LoRA); 0 fine-tunes all weights."""
    stride: int = 1
    """The rounds of the fine-tuned network evaluate every so-many-th row."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 8
    """Trajectories of each step."""
    learning_rate: float = 1e-3
    """Of Adam; 1e-4 is the paper's for a full fine-tune."""
    seed: int = 42
    """Of the order of trajectories and the first weights of the update."""
    device: str | None = None
    """Device "cpu" forces the CPU; by default every device that accelerate finds is used."""
    threads: int | None = None
    """CPU threads of torch; by default torch's own choice."""
    resume: bool = False
    """Continue the run in --output."""

    def __call__(self) -> None:
        with _extra("training"):
            from para_policy.training import distill
        set_threads(self.threads)
        policy = native.load_policy(self.checkpoint)
        keys = ("data", "objective", "rank", "stride", "steps", "batch_size", "learning_rate")
        config = distill.make_config(
            {**{key: getattr(self, key) for key in keys}, "seed": self.seed}
        )
        checkpoint = distill.distill(
            policy,
            native.checkpoint_hash(self.checkpoint),
            config,
            self.output,
            resume=self.resume,
            device=self.device,
        )
        print(f"PCM weights: {checkpoint}; copy them to {consistency.folder(self.checkpoint)}")


@dataclass(frozen=True)
class Info:
    """Say in words what a checkpoint holds."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Checkpoint directory."""

    def __call__(self) -> None:
        policy = native.load_policy(self.checkpoint)
        config = policy.config
        parameters = sum(p.numel() for p in policy.network.parameters())
        rows = {
            "policy": config.type,
            "inputs": ", ".join(f"{name} {list(shape)}" for name, shape in config.inputs.items()),
            "actions": f"{', '.join(config.action_names)} at {config.control_hz:g} Hz",
            "chunk": f"observes {config.n_obs_steps}, predicts {config.horizon}, "
            f"executes {config.n_action_steps}",
            "network": f"{parameters / 1e6:.2f} M parameters, channels {list(config.network.down_dims)}",
            "schedule": ", ".join(
                f"{key}={value}" for key, value in config.noise_scheduler.items()
            ),
            "weights sha256": native.checkpoint_hash(self.checkpoint),
            "observations": str(native.count_observations(self.checkpoint)),
            "PCM weights for": ", ".join(
                f"{kind} {n} steps {splitting}" for kind, n, splitting in policy.consistency_models
            )
            or "nothing (para-policy distill)",
            "calibrated for": ", ".join(f"{kind} {n} steps" for kind, n in policy.calibrations)
            or "nothing (para-policy calibrate)",
        }
        width = max(map(len, rows))
        for name, text in rows.items():
            print(f"{name:<{width}}  {text}")


def _demonstrated(
    config: PolicyConfig, path: Path, data: Path, count: int
) -> dict[str, np.ndarray]:
    """Observations of demonstrations, read as in training: {name: (n, To, *shape)}."""
    with _extra("reading demonstrations"):
        from para_policy.training.config import TrainConfig
        from para_policy.training.dataset import observation_windows
        from para_policy.training.replay_buffer import ReplayBuffer
    columns = TrainConfig.from_yaml(path).data
    return observation_windows(
        ReplayBuffer(data), columns.observations, columns.action, config, count
    )


@contextmanager
def _extra(what: str) -> Iterator[None]:
    """Imports of an optional extra, which the other commands must run without."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs {error.name}; pip install 'para_policy[train]'") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `para-policy`; returns the exit code."""
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
        | Annotated[MakeTrajectories, tyro.conf.subcommand("trajectories")]
        | Annotated[Distill, tyro.conf.subcommand("distill")]
        | Annotated[Info, tyro.conf.subcommand("info")],
        prog="para-policy",
        description="Real-time diffusion policies by parallel sampling.",
        args=argv,
    )
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
