"""Small measurements around the chunks: which engine is best, the roofline's points, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Document, Subject, quantiles
from benchmarks.engine import network as engine_network
from benchmarks.engine import roofline
from benchmarks.engine.chunks import DDIM_16
from benchmarks.engine.plan import counts
from benchmarks.engine.policies import parse
from benchmarks.engine.synthetic import random_observation, random_policy
from para_policy.comparison import REFERENCE
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.policies.config import PolicyConfig
from para_policy.training.config import TrainConfig


def first_half(subject: Subject) -> dict[str, np.ndarray]:
    """Observations that calibration did not use."""
    return subject.some(0, max(subject.available // 2, 1))


def best_engine(
    calls: Sequence[Document],
    configs: Mapping[str, EngineConfig],
    wanted: str | None,
    precision: str,
) -> str:
    """Label of the engine of the parallel samplers.

    Raises:
        InputError: if the one that was asked for cannot be used, or none has this precision.
    """
    if wanted is not None:
        label = parse(wanted).label
        if label not in configs:
            raise InputError(f"--best {wanted} cannot be used; expected one of {list(configs)}")
        return label
    among = [label for label, config in configs.items() if config.precision == precision]
    if not among:
        raise InputError(f"--precision {precision}: no engine has it; there are {list(configs)}")
    return engine_network.fastest(calls, among)


def roofline_points(
    network: str,
    config: PolicyConfig,
    calls: Sequence[Document],
    engines: Mapping[str, EngineConfig],
    roof: roofline.Roof,
) -> list[dict[str, Any]]:
    """Every measured call against the roof of its precision."""
    measured = [entry for entry in calls if "ms" in entry]
    work = {size: roofline.work_of(config, size) for size in {e["rows"] for e in measured}}
    return [
        roofline.point(network, e, engines[e["engine"]].precision, work[e["rows"]], roof)
        for e in measured
    ]


def image(
    training: str, device: str, engine: EngineConfig, most: int, seconds: float
) -> dict[str, Any]:
    """Chunks of an image policy with random weights, sequential DDIM-16: what the camera costs.

    Args:
        training: path of a training configuration.
    """
    config = TrainConfig.from_yaml(Path(training)).policy
    policy = random_policy(config, device, engine)
    obs = {name: value[0] for name, value in random_observation(config).items()}

    def chunk(seed: int) -> tuple[float, float]:
        stats = policy.sample(
            obs, sampler=REFERENCE, seed=seed, scheduler=DDIM_16.scheduler, steps=DDIM_16.steps
        ).stats
        return stats.wall_s, stats.encode_s

    cost = min(chunk(seed)[0] for seed in range(2))
    (count,) = counts([cost], seconds, most)
    wall_s, encode_s = np.array([chunk(seed) for seed in range(count)]).T
    return {
        "config": training,
        "engine": engine.label,
        "process": DDIM_16.label,
        "sampler": REFERENCE,
        "chunks": count,
        "latency_ms": quantiles(1e3 * wall_s),
        "encode_ms": quantiles(1e3 * encode_s),
    }
