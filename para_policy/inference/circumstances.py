"""Circumstances of a measurement: machine and software."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
from torch import nn

from para_policy.inference.device import PLAIN_ENGINE, cpu_name
from para_policy.versions import versions


def describe_machine(network: nn.Module, engine: str = PLAIN_ENGINE) -> dict[str, Any]:
    """Device, engine, dtype and threads: what a latency means nothing without."""
    weight = next(network.parameters())
    on_gpu = weight.device.type == "cuda"
    name = torch.cuda.get_device_name(weight.device) if on_gpu else cpu_name()
    return {
        "device": f"{weight.device} ({name})",
        "engine": engine,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def describe_software() -> dict[str, Any]:
    """Versions, and when it was."""
    return {
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
