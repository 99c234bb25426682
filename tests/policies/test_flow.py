"""A policy that was trained with flow matching is sampled, calibrated and continued like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, load_policy
from para_policy.calibration.measure import Settings, calibrate
from para_policy.checkpoints.calibration import save_calibration
from para_policy.checkpoints.native import checkpoint_hash, save_checkpoint
from para_policy.errors import InputError
from tests.checkpoint import FLOW, random_observations, tiny_config
from tests.checkpoints.random_weights import random_normalizers, random_weights

BY_HAND = {"_class_name": "FlowMatching", "velocity": "data-noise", "times": [1.0, 0.0]}
STEPS = 15
ONE = {name: values[0] for name, values in random_observations(1).items()}


@pytest.fixture(scope="module", params=[FLOW, BY_HAND], ids=lambda flow: str(flow["_class_name"]))
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(20).model_copy(update={"noise_scheduler": request.param})
    path = tmp_path_factory.mktemp("flow") / "policy"
    save_checkpoint(path, config, random_weights(config), random_normalizers(config))
    chain = load_policy(path).chain("flow_match_euler", STEPS)
    measured = calibrate(chain, random_observations(3, seed=99), Settings(jacobians=2, cases=6))
    save_calibration(path, measured, checkpoint_hash(path), config.noise_scheduler)
    return path


@pytest.fixture
def policy(directory: Path) -> DiffusionPolicy:
    return load_policy(directory)


def sampled(policy: DiffusionPolicy, sampler: str, **options: Any) -> np.ndarray:
    chain = policy.chain("flow_match_euler", STEPS)
    made = sampler if sampler == "sequential" else chain.sampler(sampler, tolerance=1e-4)
    result = chain.sample(ONE, sampler=made, **options)
    assert result.stats.converged
    return result.sample


@pytest.mark.parametrize("sampler", ["x0", "chord", "collocation"])
def test_parallel_samplers_give_its_sequential_chunk_from_any_start(
    policy: DiffusionPolicy, sampler: str
) -> None:
    """Alone, after the chunk before, and with the beginning of the chunk given."""
    before = policy.chain("flow_match_euler", STEPS).sample(ONE, seed=1)
    starts: list[dict[str, Any]] = [
        {},
        {"previous": before, "executed": 4, "shift_noise": True},
        {"previous": before, "executed": 4, "frozen": 3, "overlap": "soft"},
    ]
    for start in starts:
        expected = sampled(policy, "sequential", **start)
        assert np.abs(sampled(policy, sampler, **start) - expected).max() < 1e-4
    first = policy.config.first_action
    kept = expected[first : first + 3] - before.sample[first + 4 : first + 7]
    assert np.abs(kept).max() < 1e-6


def test_the_engine_is_measured_with_times_that_solves_have(policy: DiffusionPolicy) -> None:
    runtime, process = policy.runtime, policy.process("flow_match_euler", STEPS)
    times = runtime.shapes.spaced_times(9)
    moved = process.to("cpu", torch.float32).timesteps
    assert times.dtype == moved.dtype == torch.float32
    assert times.min() <= moved.min()
    assert moved.max() <= times.max()
    assert 0 < runtime.noise_floor(process) < 1e-4
    assert min(runtime.measure_latency(2).seconds) > 0


def test_a_sampler_for_another_path_is_refused(policy: DiffusionPolicy) -> None:
    for kind in ("ddpm", "ddim", "deis"):
        with pytest.raises(InputError, match="different paths"):
            policy.chain(kind, STEPS)
    kinds = ("flow_match_heun", "dpmsolver++", "unipc")
    if policy.config.noise_scheduler == FLOW:
        for kind in kinds:
            assert policy.chain(kind, STEPS).sample(ONE, sampler="x0").stats.converged
    else:
        for kind in kinds:
            with pytest.raises(InputError, match="levels and times of its own"):
                policy.chain(kind, STEPS)
