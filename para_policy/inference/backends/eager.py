"""PyTorch as it is: one kernel after the other."""

from __future__ import annotations

import torch
from torch import nn

from para_policy.inference.backends.base import Rows
from para_policy.inference.config import Precision
from para_policy.inference.precision import check_precision, in_precision


class Eager:
    """Always works."""

    name = "eager"
    static = False
    repacks = False

    def check(self, device: torch.device, precision: Precision) -> None:
        check_precision(device, precision)

    def load(self, body: nn.Module, precision: Precision) -> Rows:
        return in_precision(body, precision)
