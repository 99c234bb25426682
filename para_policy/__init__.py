"""Real-time diffusion policies: denoising steps solved in parallel, without changing the answer.

The names below are imported when they are first used, so that a process which needs only the
control part (a robot's command node) starts without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from para_policy import samplers as samplers
    from para_policy.acceleration import accelerate as accelerate
    from para_policy.acceleration import sample as sample
    from para_policy.denoiser import Denoiser as Denoiser
    from para_policy.formats.load import load_policy as load_policy
    from para_policy.noise import Noise as Noise
    from para_policy.policies.diffusion_policy import DiffusionPolicy as DiffusionPolicy
    from para_policy.process import Process as Process

_HOMES = {
    "Denoiser": "para_policy.denoiser",
    "DiffusionPolicy": "para_policy.policies.diffusion_policy",
    "Noise": "para_policy.noise",
    "Process": "para_policy.process",
    "accelerate": "para_policy.acceleration",
    "load_policy": "para_policy.formats.load",
    "sample": "para_policy.acceleration",
}

__all__ = [
    "Denoiser",
    "DiffusionPolicy",
    "Noise",
    "Process",
    "accelerate",
    "load_policy",
    "sample",
    "samplers",
]


def __getattr__(name: str) -> Any:
    if name == "samplers":
        return importlib.import_module("para_policy.samplers")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'para_policy' has no attribute {name!r}")
