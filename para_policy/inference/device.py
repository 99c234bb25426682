"""Torch devices and engines: whether they can be used, and what to call them in reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from para_policy.arguments import check_kind
from para_policy.errors import InputError
from para_policy.inference import EngineConfig
from para_policy.inference.backends import UnavailableError, attempts
from para_policy.samplers.checks import check_count, check_default_device


def check_device(device: torch.device | str) -> torch.device:
    """Return the device if tensors can live there.

    Raises:
        InputError: for an unknown or unreachable device, or as `check_default_device`.
    """
    check_kind("device", device, str, torch.device)
    check_default_device()
    try:
        checked = torch.device(device)
        torch.zeros(1, device=checked).cpu()  # "meta" takes tensors, and gives nothing back
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used ({reason}); available: {available}"
        ) from error
    return checked


PLAIN_ENGINE = "eager"
"""The engine that goes without saying."""


def device_description(device: torch.device, engine: str = PLAIN_ENGINE) -> str:
    """What a latency depends on: device, its name, for a CPU the number of threads, and the engine.

    >>> device_description(torch.device("cpu")).split(" (")[0]
    'cpu'
    >>> device_description(torch.device("cpu"), "openvino").split("thread(s)")[1]
    ', openvino'
    """
    if device.type == "cuda":
        found = f"{device.type} ({torch.cuda.get_device_name(device)})"
    else:
        found = f"{device.type} ({cpu_name()}), {torch.get_num_threads()} thread(s)"
    return found if engine == PLAIN_ENGINE else f"{found}, {engine}"


def check_weights(module: nn.Module, device: torch.device) -> None:
    """Raise InputError where the weights of a policy were moved or rounded where they are: what was
    prepared of them is as before. The first one is looked at, for all."""
    weight = next(module.parameters(), None)
    if weight is None:
        return
    if weight.dtype != torch.float32:
        raise InputError(
            f"the policy's weights are {weight.dtype} now; leave them in torch.float32, and say what to "
            "compute in: load_policy(..., engine='auto', precision='bfloat16')"
        )
    if weight.device.type != device.type:
        raise InputError(
            f"the policy's weights are on {weight.device} now, and it was made for {device}; say where it "
            "is to be: load_policy(..., device=...)"
        )


@dataclass(frozen=True)
class ExpectedEngine:
    """What an engine comes to on a device, as far as can be told before anything is compiled.

    Attributes:
        config: with the first backend and precision that should work.
        passed_over: why better ones do not.
    """

    config: EngineConfig
    passed_over: tuple[str, ...]


def expected_engine(config: EngineConfig, device: torch.device) -> ExpectedEngine:
    """Look for the backend that `config` stands for.

    Raises:
        InputError: if the one that was asked for cannot be used here.
    """
    reasons: list[str] = []
    for backend, precision in attempts(config, device):
        try:
            backend.check(device, precision)
        except UnavailableError as error:
            reasons.append(str(error))
        else:
            found = replace(config, backend=backend.name, precision=precision)
            return ExpectedEngine(found, tuple(reasons))
    raise InputError(
        f"engine {config.label!r} cannot be used on {device}: {'; '.join(reasons)}; choose 'auto' or "
        "'eager', or another precision"
    )


@cache
def cpu_name() -> str:
    """Model name of the processor; read once, as every chunk before a deadline asks for it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return "CPU"


_MOST_THREADS = 1024


def set_threads(threads: int | None) -> None:
    """Use so many CPU threads; None keeps torch's choice.

    Raises:
        InputError: for fewer than one, or more than any machine can start.
    """
    if threads is not None:
        check_count("--threads", threads, most=_MOST_THREADS)
        torch.set_num_threads(threads)
