"""Circumstances of a measurement: machine and software."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from typing import Any

import torch

from para_policy.inference.device import cpu_name
from para_policy.policies.policy import DiffusionPolicy


def describe_machine(policy: DiffusionPolicy) -> dict[str, Any]:
    """Device, engine, dtype and threads: what a latency means nothing without."""
    device = policy.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    dtype = str(next(policy.network.parameters()).dtype).removeprefix("torch.")
    return {
        "device": f"{device} ({name})",
        "engine": policy.runtime.in_use.label,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def describe_software() -> dict[str, Any]:
    """Versions, and when it was."""
    versions = {name: version(name) for name in ("numpy", "torch", "diffusers")}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
