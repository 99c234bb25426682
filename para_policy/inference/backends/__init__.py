"""Ways to run a network, and in which order they are tried."""

from __future__ import annotations

import torch

from para_policy.inference.backends.base import Backend, Prepare, Rows, Runner
from para_policy.inference.backends.compile import Compile
from para_policy.inference.backends.cuda_graph import CudaGraph
from para_policy.inference.backends.eager import Eager
from para_policy.inference.backends.onnxruntime import OnnxRuntime
from para_policy.inference.backends.openvino import OpenVino
from para_policy.inference.config import AUTO, EngineConfig, Precision
from para_policy.inference.failures import UnavailableError

__all__ = ["Backend", "Prepare", "Rows", "Runner", "UnavailableError", "attempts", "backends_for"]

_ALL: dict[str, type[Backend]] = {
    kind.name: kind for kind in (Eager, Compile, CudaGraph, OpenVino, OnnxRuntime)
}
_AUTO = {"cuda": ("cuda-graph", "compile", "eager"), "cpu": ("openvino", "eager")}


def backends_for(config: EngineConfig, device: torch.device) -> tuple[Backend, ...]:
    """New backends in the order to try them: fastest first for "auto", else the one asked for."""
    if config.backend != AUTO:
        return (_ALL[config.backend](),)
    return tuple(_ALL[name]() for name in _AUTO.get(device.type, ("eager",)))


def attempts(config: EngineConfig, device: torch.device) -> tuple[tuple[Backend, Precision], ...]:
    """Backends and precisions in the order to try them; "auto" ends with what always works."""
    wanted = tuple((backend, config.precision) for backend in backends_for(config, device))
    if config.backend != AUTO or config.precision == "float32":
        return wanted
    return (*wanted, (Eager(), "float32"))
