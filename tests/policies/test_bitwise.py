"""With a tolerance of 0 the parallel samplers return the floats of the sequential one.

On the shipped network, not on one made for it: every call is filled up to the same number of rows,
because kernels depend on the size of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from para_policy import Denoiser, DiffusionPolicy, Noise, load_policy, samplers
from para_policy.calibration import mean_jacobian
from para_policy.checkpoints.native import read_config
from para_policy.checkpoints.observations import read_observations
from tests.training.demonstrations import REPOSITORY

SHIPPED = REPOSITORY / "checkpoints" / "pusht_state"


@pytest.fixture(scope="module")
def shipped() -> Iterator[DiffusionPolicy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_policy(SHIPPED, calibrated=False)
    torch.set_num_threads(threads)


def condition(policy: DiffusionPolicy) -> Tensor:
    values = {
        name: values[:1]
        for name, values in read_observations(SHIPPED, read_config(SHIPPED)).items()
    }
    bound = policy.denoiser(values).condition
    assert bound is not None
    return bound


def random_matrices(steps: int) -> Tensor:
    return 0.1 * torch.randn(steps, 32, 32, generator=torch.Generator().manual_seed(0))


def factors(steps: int) -> tuple[Tensor, Tensor]:
    left = random_matrices(steps)[:, :, :3]
    return left, left.mT.contiguous()


EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "x0": ("x0", {}),
    "x0 in a window": ("x0", {"window": 7, "lookahead": 3}),
    "parataa": ("parataa", {"relative_tolerance": 0.0}),
    "paradigms": ("paradigms", {}),
    "chord": ("chord", {"matrices": random_matrices}),
    "chord in factors": ("chord", {"matrices": factors}),
}


def assert_equal_floats(
    policy: DiffusionPolicy, scheduler: str, steps: int, names: list[str], pad_to: int
) -> None:
    process, given = policy.process(scheduler, steps), condition(policy)
    noise = Noise.from_seeds([3], (16, 2), steps)

    def solve(name: str, **options: Any) -> samplers.SampleResult:
        denoiser = Denoiser(policy.network, given, pad_to=pad_to)
        return samplers.get(name, **options)(denoiser, process, noise)

    exact = solve("sequential")
    for label in names:
        name, options = EXACT[label]
        if "matrices" in options:
            options = {**options, "matrices": options["matrices"](steps)}
        result = solve(name, tolerance=0.0, **options)
        assert result.converged.all()
        assert torch.equal(result.trajectory, exact.trajectory), label


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpmsolver++"])
def test_every_sampler_returns_the_very_floats(shipped: DiffusionPolicy, scheduler: str) -> None:
    assert_equal_floats(shipped, scheduler, 16, list(EXACT), pad_to=16)


@pytest.mark.slow
def test_a_hundred_steps_return_the_very_floats(shipped: DiffusionPolicy) -> None:
    assert_equal_floats(shipped, "ddpm", 100, ["chord"], pad_to=100)


def test_a_measured_jacobian_returns_the_very_floats_in_a_few_rounds(
    shipped: DiffusionPolicy,
) -> None:
    """It saves rounds at the default tolerance, and changes nothing at a tolerance of 0."""
    process, noise = shipped.process("ddim", 16), Noise.from_seeds([5], (16, 2), 16)
    padded = Denoiser(shipped.network, condition(shipped), pad_to=16)
    exact = samplers.get("sequential")(padded, process, noise)
    matrices = mean_jacobian(padded, process, noise, exact.trajectory)
    strict = samplers.get("chord", matrices=matrices, tolerance=0.0)(padded, process, noise)
    assert torch.equal(strict.sample, exact.sample)
    usual = samplers.get("chord", matrices=matrices)(padded, process, noise)
    plain = samplers.get("x0")(padded, process, noise)
    assert usual.rounds < plain.rounds < 16
    torch.testing.assert_close(usual.sample, exact.sample, rtol=0, atol=2e-2)
