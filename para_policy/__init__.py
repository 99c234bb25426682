"""Real-time diffusion policies: denoising steps solved in parallel, without changing the answer.

The names below are imported when they are first used, so that a process which needs only the
control part (a robot's command node) starts without loading torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from para_policy import samplers as samplers
    from para_policy.adapters import accelerate as accelerate
    from para_policy.adapters import sample as sample
    from para_policy.checkpoints.load import load_policy as load_policy
    from para_policy.diffusion.denoiser import Denoiser as Denoiser
    from para_policy.diffusion.noise import Noise as Noise
    from para_policy.diffusion.process import Process as Process
    from para_policy.policies.policy import DiffusionPolicy as DiffusionPolicy

__version__ = "0.1.0"

_HOMES = {
    "Denoiser": "para_policy.diffusion.denoiser",
    "DiffusionPolicy": "para_policy.policies.policy",
    "Noise": "para_policy.diffusion.noise",
    "Process": "para_policy.diffusion.process",
    "accelerate": "para_policy.adapters",
    "load_policy": "para_policy.checkpoints.load",
    "sample": "para_policy.adapters",
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
