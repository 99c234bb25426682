"""How most tasks are optimised and averaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import nn

from para_policy.training.config import OptimisationConfig


class Optimised:
    """What a `Task` shares with others that its `run` describes alike: see `OptimisationConfig`."""

    run: OptimisationConfig

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        t = self.run
        return torch.optim.AdamW(
            parameters, lr=t.learning_rate, betas=t.betas, weight_decay=t.weight_decay
        )

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        return get_cosine_schedule_with_warmup(optimizer, self.run.warmup_steps, self.run.steps)

    def ema(self, parameters: Iterable[nn.Parameter]) -> EMAModel:
        return EMAModel(parameters, use_ema_warmup=True, power=self.run.ema_power)
