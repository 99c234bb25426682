"""The shipped flow-matching policy: few rounds, few rows, the answer of its 100 Euler steps."""

from __future__ import annotations

import numpy as np
import pytest

from para_policy import DiffusionPolicy, load_policy
from para_policy.checkpoints.observations import read_observations
from tests.training.demonstrations import REPOSITORY

SHIPPED = REPOSITORY / "checkpoints" / "pusht_flow"


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return load_policy(SHIPPED)


@pytest.mark.parametrize(("sampler", "rounds", "rows"), [("chord", 5, 250), ("collocation", 6, 60)])
def test_a_few_rounds_give_the_chunk_of_all_steps(
    policy: DiffusionPolicy, sampler: str, rounds: int, rows: int
) -> None:
    """On observations that calibration has not seen. The tolerance of 1e-2 is one of residuals."""
    seen = {name: values[:4] for name, values in read_observations(SHIPPED, policy.config).items()}
    exact = policy.sample(seen, sampler="sequential", seed=range(4))
    fast = policy.sample(seen, sampler=sampler, seed=range(4))
    assert (exact.stats.evals == 100).all()
    assert fast.stats.converged.all()
    assert fast.stats.rounds.mean() <= rounds
    assert fast.stats.evals.mean() <= rows
    assert np.abs(fast.sample - exact.sample).max() < 2e-2
