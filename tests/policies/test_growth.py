"""Nothing is kept from chunk to chunk."""

from __future__ import annotations

import pytest

from para_policy import DiffusionPolicy
from para_policy.inference.graphs import Repeat
from tests.checkpoint import random_observations
from tests.inference.test_growth import growth
from tests.policies.test_engine import record_rounds

CHUNKS, MIB = 1000, 2**20


@pytest.mark.slow
@pytest.mark.parametrize("replayed", [False, True])
def test_chunks_take_no_memory(bare_policy: DiffusionPolicy, replayed: bool) -> None:
    """A chunk keeps noise, states and statistics: what it leaves behind would add up to 5 MiB."""
    if replayed:
        record_rounds(bare_policy, Repeat())
    obs = {name: values[0] for name, values in random_observations(1).items()}

    def run(chunks: int) -> None:
        for seed in range(chunks):
            bare_policy.sample(obs, sampler="x0", scheduler="ddim", steps=2, seed=seed)

    run(CHUNKS // 5)
    assert any(growth(run, CHUNKS) < 2 * MIB for _ in range(4))
