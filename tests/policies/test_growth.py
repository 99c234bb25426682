"""Nothing is kept from chunk to chunk."""

from __future__ import annotations

from pathlib import Path

import pytest

from para_policy import load_policy
from para_policy.inference.graphs import Repeat
from tests.checkpoint import random_observations
from tests.inference.test_growth import in_fresh_process, resident_bytes
from tests.policies.test_engine import record_rounds

CHUNKS, KIB = 300, 2**10


@pytest.mark.slow
@pytest.mark.parametrize("replayed", [False, True])
def test_chunks_take_no_memory(tiny_directory: Path, replayed: bool) -> None:
    """A chunk has 5 KiB of noise, states and statistics; 2 KiB of each are not to stay."""
    assert in_fresh_process(growth_of_chunks, tiny_directory, replayed) < 2 * KIB * CHUNKS


def growth_of_chunks(checkpoint: Path, replayed: bool) -> int:
    """Bytes that `CHUNKS` add, after a fifth of them."""
    policy = load_policy(checkpoint, calibrated=False)
    if replayed:
        record_rounds(policy, Repeat())
    obs = {name: values[0] for name, values in random_observations(1).items()}

    def run(chunks: int) -> int:
        for seed in range(chunks):
            policy.sample(obs, sampler="x0", scheduler="ddim", steps=2, seed=seed)
        return resident_bytes()

    before = run(CHUNKS // 5)
    return run(CHUNKS) - before
