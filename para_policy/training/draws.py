"""Random draws of a training run, which depend on seed and step alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from para_policy.diffusion.noise_schedule import DiscreteSchedule, NoiseSchedule
from para_policy.extras import extra
from para_policy.training.config import Beta, Uniform

with extra("train", "training"):
    from accelerate import Accelerator


def generator(seed: int, *key: int) -> torch.Generator:
    """Random numbers that depend on `seed` and `key` alone."""
    words = np.random.SeedSequence([seed, *(k % 2**32 for k in key)]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def batch_indices(
    step: int, size: int, batch_size: int, seed: int, accelerator: Accelerator
) -> Tensor:
    """Which of `size` examples this process sees in `step`: each once in an epoch, shuffled.

    All processes together see the batch that a single one would see.
    """
    epoch, position = divmod(step, size // batch_size)
    order = torch.randperm(size, generator=generator(seed, -1 - epoch))
    batch = order[position * batch_size : (position + 1) * batch_size]
    return batch[own_part(batch_size, accelerator)]


def own_part(batch_size: int, accelerator: Accelerator) -> slice:
    """Rows of a batch that this process computes; `batch_size` is a multiple of the processes."""
    rows = batch_size // accelerator.num_processes
    return slice(accelerator.process_index * rows, (accelerator.process_index + 1) * rows)


def noise_levels(
    schedule: NoiseSchedule, distribution: Uniform | Beta, count: int, random: torch.Generator
) -> Tensor:
    """Levels (count,) of `schedule` to train at: whole numbers, or those of a flow in [0, 1]."""
    if isinstance(schedule, DiscreteSchedule):
        return torch.randint(len(schedule), (count,), generator=random)
    if isinstance(distribution, Uniform):
        return 1 - torch.rand(count, generator=random)
    # torch draws from beta distributions without a generator.
    seed = int(torch.randint(2**62, (), generator=random))
    u = np.random.default_rng(seed).beta(distribution.alpha, distribution.beta, count)
    return torch.from_numpy(1 - distribution.s * (1 - u)).float()
