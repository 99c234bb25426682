"""Networks of the published sizes with random weights, and what a chunk would take with them.

A random network has no trajectory to solve for, so the rounds and their rows are those of the trained
policy that ships; only the time of the calls is the large network's. Such figures are synthetic.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.common import Document
from benchmarks.engine.chunks import Case, Turns
from benchmarks.engine.network import in_order, latency_table, measure_calls
from benchmarks.engine.plan import Clock
from benchmarks.engine.policies import alone, compiles_long
from para_policy.diffusion.noise import Noise
from para_policy.inference import EngineConfig
from para_policy.inference.runtime import Runtime
from para_policy.networks.config import UnetConfig
from para_policy.policies.build import VISION, build_network, build_vision
from para_policy.policies.config import PolicyConfig
from para_policy.policies.normalizer import LinearNormalizer
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.deadline import LatencyTable

MEMORY_MIB = 16 * 1024
ROWS = (1, 100, 26, 64, 128)
"""Sizes at which the large networks are timed, the most needed first."""

PUBLISHED: Mapping[str, tuple[UnetConfig, int]] = {
    "65.8 M": (UnetConfig(down_dims=(256, 512, 1024), step_embed_dim=256), 20),
    "251.5 M": (UnetConfig(down_dims=(512, 1024, 2048), step_embed_dim=128), 66),
}
"""Network and width of one observation step: PushT from keypoints and from camera features."""

RoundRows = Sequence[int]


def random_config(name: str, like: PolicyConfig) -> PolicyConfig:
    """A published network that gets a plain vector for an observation."""
    network, width = PUBLISHED[name]
    return like.changed(
        {
            "inputs": {"features": (width,)},
            "vision": None,
            "units": {},
            "network": network.model_dump(),
        }
    )


def random_policy(config: PolicyConfig, device: str, engine: EngineConfig) -> DiffusionPolicy:
    """A policy with random weights, the same in every call; it normalises nothing."""
    torch.manual_seed(0)
    state = dict(build_network(config).state_dict())
    vision = build_vision(config)
    if vision is not None:
        state |= {VISION + name: value for name, value in vision.state_dict().items()}
    widths = {name: shape[0] for name, shape in config.inputs.items()}
    plain = {
        name: LinearNormalizer(torch.ones(width), torch.zeros(width))
        for name, width in {**widths, "action": config.action_dim}.items()
    }
    return DiffusionPolicy(config, state, plain, device=device, engine=engine)


def random_observation(config: PolicyConfig) -> dict[str, np.ndarray]:
    """{name: (1, To, *shape)} in [0, 1)."""
    random = np.random.default_rng(0)
    return {
        name: random.random((1, config.n_obs_steps, *shape), dtype=np.float32)
        for name, shape in config.inputs.items()
    }


def round_rows(case: Case, turns: Turns, count: int, clock: Clock) -> list[list[int]]:
    """Rows of each network call of some solves of the trained policy: `count`, or as many as the time
    allows, one at least."""
    found: list[list[int]] = []
    while len(found) < count and (clock.left or not found):
        found.append(_solve_rows(case, turns, len(found)))
    return found


def _solve_rows(case: Case, turns: Turns, turn: int) -> list[int]:
    policy = case.policy
    process = policy.process(turns.process.scheduler, turns.process.steps)
    shape = (policy.config.horizon, policy.config.action_dim)
    noise = Noise.from_seeds([turn], shape, process.num_steps, device=policy.device)
    denoiser = policy.denoiser(turns.batch([turn]))
    seen = [(0, 0)]

    def look(_: object = None) -> None:
        seen.append((denoiser.rounds, denoiser.evals))

    case.sampler(denoiser, process, noise, callback=look)
    look()  # what came after the last round
    found: list[int] = []
    for (calls, evals), (more_calls, more_evals) in itertools.pairwise(seen):
        if more_calls > calls:
            found += [(more_evals - evals) // (more_calls - calls)] * (more_calls - calls)
    return found


def network_seconds(solves: Sequence[RoundRows], latency: LatencyTable) -> float:
    """Median over solves of the time in network calls.

    >>> network_seconds([[64, 32], [64, 32, 1]], LatencyTable((1, 65), (0.001, 0.065)))
    0.0965
    """
    return float(np.median([sum(map(latency.predict, solve)) for solve in solves]))


def synthetic_chunks(
    network: str,
    tables: Mapping[str, LatencyTable],
    solves: Mapping[tuple[str, str], Sequence[RoundRows]],
    own: Mapping[tuple[str, str, str], float],
) -> list[dict[str, Any]]:
    """What chunks would take with another network.

    Args:
        tables: latency of the other network, by engine.
        solves: rows of each round of the trained policy, by process and sampler.
        own: seconds that a chunk of the trained policy spends outside of its network, by process,
            sampler and engine.
    """
    return [
        {
            "network": network,
            "engine": engine,
            "process": process,
            "sampler": sampler,
            "solves": len(found),
            "rounds_mean": float(np.mean([len(solve) for solve in found])),
            "evals_mean": float(np.mean([sum(solve) for solve in found])),
            "network_ms": 1e3 * network_seconds(found, table),
            "solver_ms": 1e3 * own[process, sampler, engine],
            "chunk_ms": 1e3 * (network_seconds(found, table) + own[process, sampler, engine]),
        }
        for engine, table in tables.items()
        for (process, sampler), found in solves.items()
        if (process, sampler, engine) in own
    ]


def time_outside(
    chunks: Sequence[Document],
    calls: Sequence[Document],
    solves: Mapping[tuple[str, str], Sequence[RoundRows]],
) -> dict[tuple[str, str, str], float]:
    """Median chunk of the trained policy minus its network calls, at least 0, in seconds."""
    own = {}
    for entry in chunks:
        process, sampler, engine = entry["process"], entry["sampler"], entry["engine"]
        latency = latency_table(calls, engine)
        if latency is not None and (process, sampler) in solves:
            inside = network_seconds(solves[process, sampler], latency)
            own[process, sampler, engine] = max(entry["latency_ms"]["p50"] / 1e3 - inside, 0.0)
    return own


def measure_sizes(
    policy: DiffusionPolicy, runtimes: Mapping[str, Runtime], clock: Clock
) -> list[dict[str, Any]]:
    """As `measure_calls` on each runtime of the policy, the most needed sizes first.

    Where each size takes a copy of the weights, they are prepared one at a time. No size is begun when
    the time is over; a table needs two, so of an engine that has one the second is.
    """
    observation = random_observation(policy.config)
    found: list[dict[str, Any]] = []
    for size in ROWS:
        for name, runtime in runtimes.items():
            if clock.left or 0 < len(found) < 2 * len(runtimes):
                engine = runtime.engine.config
                shared = compiles_long(engine)
                policy.runtime = runtime if shared else runtime.on(alone(engine, size, MEMORY_MIB))
                found += measure_calls({name: policy}, observation, (size,), clock, 9)
    return in_order(found, list(runtimes))
