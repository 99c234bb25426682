"""Random draws of a training run, which depend on seed and step alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from para_policy.extras import extra

with extra("train", "training"):
    from accelerate import Accelerator


def generator(seed: int, *key: int) -> torch.Generator:
    """Random numbers that depend on `seed` and `key` alone."""
    words = np.random.SeedSequence([seed, *(k % 2**32 for k in key)]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def batch_indices(
    step: int, size: int, batch_size: int, seed: int, accelerator: Accelerator
) -> Tensor:
    """Which of `size` examples this process sees in `step`: each once in an epoch, shuffled."""
    per_device = max(1, batch_size // accelerator.num_processes)
    epoch, position = divmod(step, size // (per_device * accelerator.num_processes))
    order = torch.randperm(size, generator=generator(seed, -1 - epoch))
    first = (position * accelerator.num_processes + accelerator.process_index) * per_device
    return order[first : first + per_device]
