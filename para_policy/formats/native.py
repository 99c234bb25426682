"""The native checkpoint: a directory of JSON and safetensors. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from para_policy.errors import CheckpointError
from para_policy.formats.calibration import read_calibrations, read_latencies
from para_policy.formats.consistency import folder, read_consistencies
from para_policy.formats.files import read_tensors, replace, summarise
from para_policy.policies.config import PolicyConfig
from para_policy.policies.diffusion_policy import DiffusionPolicy
from para_policy.policies.normalizer import MinMaxNormalizer

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
NORMALIZER_FILE = "normalizer.safetensors"
OBSERVATIONS_FILE = "observations.safetensors"


def save_checkpoint(
    directory: str | Path,
    config: PolicyConfig,
    model_state: dict[str, Tensor],
    normalizers: dict[str, MinMaxNormalizer],
) -> None:
    """Write a native checkpoint; each file appears whole or not at all."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    statistics = {
        f"{name}.{key}": value.contiguous()
        for name, normalizer in normalizers.items()
        for key, value in (("scale", normalizer.scale), ("offset", normalizer.offset))
    }
    model = {key: value.detach().cpu().float().contiguous() for key, value in model_state.items()}
    replace(directory / MODEL_FILE, lambda path: save_file(model, path))
    replace(directory / NORMALIZER_FILE, lambda path: save_file(statistics, path))
    text = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    replace(directory / CONFIG_FILE, lambda path: path.write_text(text))


def load_policy(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    calibrated: bool = True,
    consistency: str | Path | None = None,
) -> DiffusionPolicy:
    """Load a policy from a native checkpoint directory.

    Args:
        path: directory with `config.json`, `model.safetensors` and `normalizer.safetensors`, and
            optionally `calibration/`.
        device: where the network runs, such as "cpu" or "cuda:0".
        calibrated: read `calibration/` and the PCM weights beside it; False ignores them, to
            measure anew.
        consistency: directory of PCM weights; None for `<path>_pcm`, if there is one.

    Raises:
        CheckpointError: if a file is missing, truncated, or does not fit the configuration, or a
            calibration or PCM weights were made for other weights.
        InputError: if the device does not exist.
    """
    directory = Path(path)
    config = read_config(directory)
    model_state = read_tensors(directory / MODEL_FILE)
    normalizers = _read_normalizers(directory, config)
    try:
        policy = DiffusionPolicy(config, model_state, normalizers, device=device)
    except RuntimeError as error:
        raise CheckpointError(
            f"'{directory / MODEL_FILE}' does not fit config.json: {error}"
        ) from error
    sha256, schedule = checkpoint_hash(directory), config.noise_scheduler
    if calibrated:
        calibrations = read_calibrations(
            directory,
            sha256,
            schedule,
            condition_dim=config.condition_dim,
            sample_dim=config.horizon * config.action_dim,
        )
        policy.calibrations = {key: value.to(policy.device) for key, value in calibrations.items()}
        policy.latencies = read_latencies(directory)
    if consistency is not None and not Path(consistency).is_dir():
        raise CheckpointError(f"no PCM weights at '{consistency}': expected a directory")
    if calibrated or consistency is not None:
        shapes = {name: value.shape for name, value in policy.network.named_parameters()}
        trained = folder(directory) if consistency is None else Path(consistency)
        policy.consistency_models = read_consistencies(trained, sha256, schedule, shapes)
    return policy


def read_config(directory: str | Path) -> PolicyConfig:
    """Read and validate `config.json`."""
    path = Path(directory) / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at '{directory}': {CONFIG_FILE} is missing; "
            f"expected a directory with {CONFIG_FILE}, {MODEL_FILE} and {NORMALIZER_FILE}"
        )
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON: {error}") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"'{path}' has format_version {version!r}, this release reads {FORMAT_VERSION}; "
            "update para_policy or convert the checkpoint"
        )
    try:
        return PolicyConfig.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"'{path}': {summarise(error)}") from error


def save_observations(directory: str | Path, observations: Mapping[str, np.ndarray]) -> None:
    """Write {name: (n, To, *shape)} beside the weights, so that `bench` needs no data set."""
    tensors = {
        name: torch.from_numpy(np.asarray(values, np.float32))
        for name, values in observations.items()
    }
    replace(Path(directory) / OBSERVATIONS_FILE, lambda path: save_file(tensors, path))


def read_observations(directory: str | Path) -> dict[str, np.ndarray]:
    """Return the shipped observations {name: (n, To, *shape)}, physical units.

    Raises:
        CheckpointError: if there are none, or they do not fit the configuration.
    """
    config = read_config(directory)
    path = Path(directory) / OBSERVATIONS_FILE
    observations = {name: value.numpy() for name, value in read_tensors(path).items()}
    expected = {name: (config.n_obs_steps, *shape) for name, shape in config.inputs.items()}
    found = {name: values.shape[1:] for name, values in observations.items()}
    if found != expected or len({len(values) for values in observations.values()}) != 1:
        raise CheckpointError(
            f"'{path}' holds {found}; config.json says {expected}, equally many of each"
        )
    return observations


def count_observations(directory: str | Path) -> int:
    """Number of shipped observations, 0 if there are none."""
    if not (Path(directory) / OBSERVATIONS_FILE).is_file():
        return 0
    return len(next(iter(read_observations(directory).values())))


def checkpoint_hash(directory: str | Path) -> str:
    """Return the sha256 of the weights, which calibrations and results are bound to."""
    path = Path(directory) / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(f"'{path}' is missing from the checkpoint")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_normalizers(directory: Path, config: PolicyConfig) -> dict[str, MinMaxNormalizer]:
    path = directory / NORMALIZER_FILE
    statistics = read_tensors(path)
    widths = {name: int(torch.Size(shape).numel()) for name, shape in config.inputs.items()}
    normalizers = {}
    for name, width in {**widths, "action": config.action_dim}.items():
        for key in (f"{name}.scale", f"{name}.offset"):
            if key not in statistics:
                raise CheckpointError(
                    f"'{path}' has no '{key}'; without statistics actions are meaningless"
                )
            if statistics[key].shape != (width,):
                raise CheckpointError(
                    f"'{path}': '{key}' has shape {tuple(statistics[key].shape)}, config.json says ({width},)"
                )
        if (statistics[f"{name}.scale"] == 0).any():
            raise CheckpointError(
                f"'{path}': '{name}.scale' holds 0; every coordinate needs a range"
            )
        normalizers[name] = MinMaxNormalizer(
            statistics[f"{name}.scale"], statistics[f"{name}.offset"]
        )
    return normalizers
