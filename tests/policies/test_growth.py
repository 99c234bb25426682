"""Nothing is kept from chunk to chunk."""

from __future__ import annotations

import pytest

from para_policy import DiffusionPolicy
from para_policy.inference.graphs import Repeat
from tests.checkpoint import random_observations
from tests.inference.test_growth import resident_bytes
from tests.policies.test_engine import record_rounds

CHUNKS, MIB = 1000, 2**20


@pytest.mark.slow
@pytest.mark.parametrize("replayed", [False, True])
def test_chunks_take_no_memory(bare_policy: DiffusionPolicy, replayed: bool) -> None:
    """A chunk keeps noise, states and statistics: what it leaves behind would add up to 5 MiB."""
    if replayed:
        record_rounds(bare_policy, Repeat())
    obs = {name: values[0] for name, values in random_observations(1).items()}

    def run(chunks: int) -> int:
        for seed in range(chunks):
            bare_policy.sample(obs, sampler="x0", scheduler="ddim", steps=2, seed=seed)
        return resident_bytes()

    before = run(CHUNKS // 5)
    assert run(CHUNKS) - before < 2 * MIB
