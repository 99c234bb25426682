"""The shipped policies: few rounds, few rows, the answer of all their steps."""

from __future__ import annotations

import numpy as np
import pytest

from para_policy import load_policy
from para_policy.checkpoints.observations import read_observations
from tests.training.demonstrations import REPOSITORY


@pytest.mark.parametrize(
    ("name", "scheduler", "steps", "sampler", "rounds", "rows"),
    [
        ("pusht_flow", None, 100, "chord", 5, 250),
        ("pusht_flow", None, 100, "collocation", 6, 75),
        ("aloha_state", None, 100, "x0", 11, 500),
        ("aloha_state", "ddim", 16, "chord", 7, 60),
        ("aloha_state", "ddim", 16, "collocation", 10, 75),
    ],
)
def test_a_few_rounds_give_the_chunk_of_all_steps(
    name: str, scheduler: str | None, steps: int, sampler: str, rounds: int, rows: int
) -> None:
    """On observations that calibration has not seen. The tolerance of 1e-2 is one of residuals."""
    checkpoint = REPOSITORY / "checkpoints" / name
    policy = load_policy(checkpoint)
    of_all = read_observations(checkpoint, policy.config)
    seen = {key: values[:4] for key, values in of_all.items()}
    how = {"scheduler": scheduler, "steps": steps, "seed": range(4)}
    exact = policy.sample(seen, sampler="sequential", **how)
    fast = policy.sample(seen, sampler=sampler, **how)
    assert (exact.stats.evals == steps).all()
    assert fast.stats.converged.all()
    assert fast.stats.rounds.mean() <= rounds
    assert fast.stats.evals.mean() <= rows
    assert np.abs(fast.sample - exact.sample).max() < 3e-2
