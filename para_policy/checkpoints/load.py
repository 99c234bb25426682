"""Policies from checkpoints of any format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, get_args

import torch

from para_policy.arguments import check_kind
from para_policy.checkpoints.calibration import read_calibrations, read_latencies, read_sizes
from para_policy.checkpoints.checkpoint import Checkpoint
from para_policy.checkpoints.consistency import folder, read_consistencies
from para_policy.checkpoints.hub import looks_like_hub_id, snapshot
from para_policy.checkpoints.lerobot.read import is_lerobot, read_lerobot
from para_policy.checkpoints.native import read_native
from para_policy.errors import CheckpointError, InputError
from para_policy.inference import EngineConfig
from para_policy.inference.config import Precision
from para_policy.inference.device import check_device, expected_engine
from para_policy.policies.consistency import changeable
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.checks import check_default_device

Weights = Literal["live", "ema"]


def read_checkpoint(
    path: str | Path,
    *,
    weights: Weights = "live",
    changes: Mapping[str, Any] = MappingProxyType({}),
    task: str | None = None,
) -> Checkpoint:
    """Read a native or LeRobot checkpoint directory.

    Args:
        weights: "ema" for the averaged weights that LeRobot keeps beside those of a checkpoint; a
            native checkpoint has one set only.
        changes: other values of keys of `config.json`, see `changes.read_changed`.
        task: what the robot is to do, in words, for a LeRobot policy that takes a text; a native one
            holds its own. See `read_lerobot`.

    Raises:
        CheckpointError: if nothing that can be read is there, or it is not whole.
        InputError: as `check_default_device`.
    """
    path = Path(path)
    check_default_device()
    check_kind("weights", weights, str)
    check_kind("task", task, str, NoneType)
    if weights not in get_args(Weights):
        raise InputError(f"weights is {weights!r}; expected one of {', '.join(get_args(Weights))}")
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, a disk that is gone
        raise CheckpointError(f"no checkpoint at '{str(path)[:80]}': {error.strerror}") from error
    if is_file:
        raise CheckpointError(
            f"'{path}' is a file; a checkpoint is a directory. For a .ckpt of the original "
            f"diffusion_policy project run: para-policy convert {path} DIRECTORY"
        )
    if is_lerobot(path):
        return read_lerobot(path, weights, changes, task)
    if weights != "live":
        raise CheckpointError(
            f"'{path}' is no LeRobot checkpoint; it has no other weights to choose"
        )
    if task is not None:
        raise InputError(
            f"task is {task!r}; '{path}' is no LeRobot checkpoint: its task was chosen when it was "
            "converted, if it has one"
        )
    return read_native(path, changes)


def resolve(path: str | Path) -> Path:
    """The directory of a checkpoint; one of the Hub is downloaded."""
    check_kind("checkpoint", path, str, Path)
    return snapshot(str(path)) if looks_like_hub_id(path) else Path(path)


def load_policy(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    calibrated: bool = True,
    consistency: str | Path | None = None,
    weights: Weights = "live",
    engine: str | EngineConfig = "eager",
    precision: Precision = "float32",
    task: str | None = None,
) -> DiffusionPolicy:
    """Load a policy from a native or LeRobot checkpoint.

    Args:
        path: directory of the checkpoint, optionally with `calibration/`; or, if there is no such
            directory, the name of a repository on the Hugging Face Hub ("lerobot/diffusion_pusht").
        device: where the network runs, such as "cpu" or "cuda:0".
        calibrated: read `calibration/` and the PCM weights beside it; False ignores them, to
            measure anew.
        consistency: directory of PCM weights; None for `<path>_pcm`, if there is one.
        weights: as for `read_checkpoint`.
        engine: how the network runs: "eager" is PyTorch as it is, "auto" the fastest way that works
            on the device; see `EngineConfig`. By name it takes the batch sizes that calibration has
            measured on this device.
        precision: of the network's arithmetic, where `engine` is a name.
        task: what the robot is to do, in words; needed for LeRobot's `multi_task_dit` that was not
            converted with it.

    Raises:
        CheckpointError: if a file is missing, truncated, or does not fit the configuration, or a
            calibration or PCM weights were made for other weights, or a calibration for another task.
        InputError: if the device does not exist, or an engine or precision of that name.
    """
    directory = resolve(path)
    checkpoint = read_checkpoint(directory, weights=weights, task=task)
    try:
        return make_policy(
            checkpoint, directory, device, calibrated, consistency, engine, precision
        )
    except CheckpointError as error:
        if weights == "live":
            raise
        raise CheckpointError(
            f"{error}. What lies beside a checkpoint is for its live weights: for the averaged ones run "
            f"para-policy convert '{path}' DIRECTORY --weights ema, or give calibrated=False"
        ) from error


def make_policy(
    checkpoint: Checkpoint,
    directory: Path,
    device: str | torch.device = "cpu",
    calibrated: bool = True,
    consistency: str | Path | None = None,
    engine: str | EngineConfig = "eager",
    precision: Precision = "float32",
) -> DiffusionPolicy:
    """Build the policy of a checkpoint, with what was measured and trained for it; see `load_policy`."""
    checkpoint.check_complete()
    config, schedule = checkpoint.config, checkpoint.config.noise_scheduler
    check_kind("engine", engine, str, EngineConfig)
    check_kind("consistency", consistency, str, Path, NoneType)
    named = isinstance(engine, str)
    if isinstance(engine, str):
        engine = EngineConfig(engine, precision)
        expected_engine(engine, check_device(device))  # fails before the network is built
    policy = DiffusionPolicy(config, checkpoint.state, checkpoint.normalizers, device, engine)
    if named and calibrated:
        sizes = read_sizes(directory).get(policy.runtime.expected_key)
        if sizes is not None:
            policy.runtime = policy.runtime.on(replace(engine, sizes=sizes))
    if consistency is not None and not os.path.isdir(consistency):
        raise CheckpointError(f"no PCM weights at '{consistency}': expected a directory")
    if not calibrated and consistency is None:
        return policy
    if calibrated:
        calibrations = read_calibrations(
            directory,
            checkpoint.measured,
            schedule,
            condition_dim=config.condition_dim,
            sample_dim=config.horizon * config.action_dim,
            task=None if config.task is None else config.task.text,
        )
        for of, calibration in calibrations.items():
            if not calibration.fits(policy.process(*of)):
                raise CheckpointError(
                    f"the calibration for {of[0]} with {of[1]} steps in '{directory}' was measured on "
                    "another step table than this release makes of its noise schedule; run "
                    "para-policy calibrate again"
                )
            policy.calibrations[of] = calibration.to(policy.device)
        policy.runtime.latencies.update(read_latencies(directory))
    shapes = changeable(policy.network)
    trained = folder(directory) if consistency is None else Path(consistency)
    policy.consistency_models = read_consistencies(trained, checkpoint.sha256, schedule, shapes)
    return policy
