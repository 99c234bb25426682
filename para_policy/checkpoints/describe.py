"""Description of a checkpoint in words: `para-policy info`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from para_policy.checkpoints.load import Weights, make_policy, read_checkpoint, resolve
from para_policy.checkpoints.observations import count_observations
from para_policy.inference.config import Precision
from para_policy.inference.device import PLAIN_ENGINE, expected_engine
from para_policy.networks.config import TransformerConfig, UnetConfig
from para_policy.policies.config import PolicyConfig
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.deadline import LatencyTable


def describe(
    path: str | Path,
    weights: Weights = "live",
    engine: str = "eager",
    precision: Precision = "float32",
) -> dict[str, str]:
    """Facts about a checkpoint by name, for people.

    Raises:
        CheckpointError, InputError: as `load_policy`.
    """
    directory = resolve(path)
    checkpoint = read_checkpoint(directory, weights=weights)
    whole = replace(checkpoint, lacks=None)  # it shall not act
    policy = make_policy(whole, directory, engine=engine, precision=precision)
    config = checkpoint.config
    calibrated = [f"{kind} {n} steps" for kind, n in policy.calibrations]
    trained = [f"{kind} {n} steps {name}" for kind, n, name in policy.consistency_models]
    rate = "unknown rate" if config.control_hz is None else f"{config.control_hz:g} Hz"
    return {
        "policy": "diffusion policy, " + _network(config),
        "parameters": ", ".join(_sizes(policy)),
        "inputs": "; ".join(_inputs(config)),
        **({} if config.task is None else {"task": checkpoint.lacks or repr(config.task.text)}),
        "actions": f"{', '.join(config.action_names)} at {rate}{_unit(config, 'action')}",
        "chunk": f"observes {config.n_obs_steps}, predicts {config.horizon}, executes "
        f"{config.n_action_steps} from {config.first_action}",
        "schedule": ", ".join(f"{key}={value}" for key, value in config.noise_scheduler.items()),
        "denoising steps": str(policy.process().num_steps),
        "weights": f"{checkpoint.source.name}, sha256 {checkpoint.sha256}",
        "weights used": checkpoint.report.text(),
        "observations": str(count_observations(directory, config)),
        "calibrated for": ", ".join(calibrated) or "nothing (para-policy calibrate)",
        "PCM weights for": ", ".join(trained) or "nothing (para-policy distill)",
        "engine": _engine(policy),
        "latency": "; ".join(_latencies(policy)) or "not measured (para-policy calibrate)",
    }


def _network(config: PolicyConfig) -> str:
    network = config.network
    if isinstance(network, UnetConfig):
        return f"U-Net with channels {list(network.down_dims)}"
    if isinstance(network, TransformerConfig):
        return f"transformer with {network.n_layer} layers of width {network.n_emb}"
    return f"DiT with {network.num_layers} layers of width {network.hidden_dim}"


def _sizes(policy: DiffusionPolicy) -> Iterator[str]:
    modules = {"network": policy.network, "camera encoders": policy.vision}
    for name, module in modules.items():
        if module is not None:
            yield f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M in the {name}"


def _inputs(config: PolicyConfig) -> Iterator[str]:
    for name, shape in config.inputs.items():
        image = config.vision is not None and name in config.cameras
        kind = f" image, {config.vision.label}" if image and config.vision else ""
        yield f"{name} {list(shape)}{kind}{_unit(config, name)}"


def _unit(config: PolicyConfig, name: str) -> str:
    return f" in {config.units[name]}" if name in config.units else ""


def _engine(policy: DiffusionPolicy) -> str:
    config = policy.runtime.engine.config
    expected = expected_engine(config, policy.device).config.label
    found = expected if config.label == expected else f"{config.label}: {expected} here"
    if expected.startswith(PLAIN_ENGINE):
        return found
    return f"{found}, calls of {', '.join(str(size.rows) for size in config.sizes)} rows"


def _latencies(policy: DiffusionPolicy) -> Iterator[str]:
    here = policy.runtime.expected_key
    for key, table in policy.runtime.latencies.items():
        mark = " (this device, engine and network)" if key == here else ""
        yield f"{key}{mark}: {_milliseconds(table)}"


def _milliseconds(table: LatencyTable) -> str:
    return ", ".join(f"{1e3 * table.predict(rows):.2g} ms for {rows} rows" for rows in (1, 16, 100))
