"""Circumstances of a measurement: machine and software."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch
from torch import nn

from para_policy.inference.config import EngineConfig
from para_policy.inference.device import cpu_name
from para_policy.versions import versions


def describe_machine(network: nn.Module, engine: EngineConfig | None = None) -> dict[str, Any]:
    """Device, engine, dtype and threads: what a latency means nothing without.

    Args:
        engine: that runs the network; None: the plain one. `dtype` is what it computes in, where a
            precision of float32 leaves that to the weights.
    """
    engine = engine or EngineConfig()
    weight = next(network.parameters())
    stored = str(weight.dtype).removeprefix("torch.")
    on_gpu = weight.device.type == "cuda"
    name = torch.cuda.get_device_name(weight.device) if on_gpu else cpu_name()
    return {
        "device": f"{weight.device} ({name})",
        "engine": engine.label,
        "dtype": stored if engine.precision == "float32" else engine.precision,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def describe_software() -> dict[str, Any]:
    """Versions, and when it was."""
    return {
        "versions": versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
