"""One rule that turns an episode's seed into the noise seed of each of its chunks."""

from __future__ import annotations

import numpy as np

from para_policy.errors import InputError


def chunk_seed(seed: int, chunk_index: int) -> int:
    """Noise seed of chunk `chunk_index` (0, 1, ...) in the episode seeded with `seed`.

    The in-process evaluation and the ROS node both use it, so that their episodes draw the same
    noise and can be compared chunk by chunk. Neighbouring seeds or indices share nothing.

    Returns:
        an integer in [0, 2**63), which every generator in use accepts.
    Raises:
        InputError: when either number is negative.
    """
    if seed < 0 or chunk_index < 0:
        raise InputError(f"seed and chunk index must be >= 0, got {seed} and {chunk_index}")
    (word,) = np.random.SeedSequence([seed, chunk_index]).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))
