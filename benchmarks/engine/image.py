"""Chunks of an image policy with random weights: what the camera costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import quantiles
from benchmarks.engine.chunks import DDIM_16
from benchmarks.engine.plan import Clock, counts
from benchmarks.engine.synthetic import random_observation, random_policy
from para_policy.comparison import REFERENCE
from para_policy.inference import EngineConfig
from para_policy.training.config import TrainConfig


def measure_image(
    training: str, device: str, engine: EngineConfig, most: int, clock: Clock
) -> dict[str, Any]:
    """Times of sequential DDIM-16 chunks, and of the camera encoders in them.

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
    (count,) = counts([cost], clock.left, most)
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
