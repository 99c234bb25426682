"""Provenance of results: what they depend on, and the machine they were made on."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import torch

from para_policy.checkpoints import native
from para_policy.checkpoints.calibration import FOLDER
from para_policy.checkpoints.lerobot import read as lerobot
from para_policy.checkpoints.lerobot.statistics import POSTPROCESSOR, PREPROCESSOR
from para_policy.inference.device import PLAIN_ENGINE, cpu_name
from para_policy.policies.policy import DiffusionPolicy
from para_policy.versions import versions
from sim.evaluation.batches import Sampling

_READ = {native.CONFIG_FILE, lerobot.TRAIN_FILE, PREPROCESSOR, POSTPROCESSOR, "tokenizer.json"}
"""JSON files that a policy may be loaded from; results lie beside them, too."""


def sampling_identity(policy: DiffusionPolicy, sampling: Sampling) -> dict[str, Any]:
    """Everything that an episode depends on, besides its sampler and seed; not where files are."""
    task = sampling.simulated(policy)
    kind, steps = policy.chain(sampling.scheduler, sampling.steps).key
    return {
        "task": task.name,
        "checkpoint_sha256": directory_hash(sampling.checkpoint),
        "scheduler": kind,
        "steps": steps,
        "device": sampling.device,
        "engine": _engine(policy),
        "check_errors": sampling.check_errors,
        "versions": versions(*task.packages),
    }


def _engine(policy: DiffusionPolicy) -> str:
    """How the network runs; the batch sizes, too, where they decide about the last bits."""
    engine = policy.runtime.in_use
    if engine.backend == PLAIN_ENGINE:
        return engine.label
    sizes = ", ".join(f"{s.rows} on {s.threads or 'all'}" for s in engine.sizes)
    return f"{engine.label} (rows on threads: {sizes})"


def circumstances(policy: DiffusionPolicy, checkpoint: Path) -> dict[str, Any]:
    """Where the policy was found, what timings depend on, and when they were taken."""
    engine = policy.runtime.in_use
    return {
        "checkpoint": str(checkpoint),
        "backend": engine.backend,
        "dtype": engine.precision,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}: {cpu_name()}, {os.cpu_count()} cores",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def directory_hash(directory: Path) -> str:
    """SHA-256 over the names and contents of all files that actions depend on."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if _is_read(path.relative_to(directory)):
            digest.update(f"{path.relative_to(directory)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _is_read(path: Path) -> bool:
    """Whether actions depend on a file; `path` is relative to the checkpoint."""
    folder = path.parent.as_posix()
    if path.suffix == ".safetensors":
        return folder in {".", FOLDER}
    return folder == "." and path.name in _READ
