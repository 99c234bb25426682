"""Torch devices: whether they can be used, and what to call them in reports."""

from __future__ import annotations

import torch

from para_policy.errors import InputError


def check_device(device: torch.device | str) -> torch.device:
    """Return the device if tensors can live there.

    Raises:
        InputError: for an unknown or unreachable device.
    """
    try:
        checked = torch.device(device)
        torch.empty(1, device=checked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = "cpu" + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used ({reason}); available: {available}"
        ) from error
    return checked


def device_description(device: torch.device) -> str:
    """What a latency depends on: device, its name, and for a CPU the number of threads.

    >>> device_description(torch.device("cpu")).split(" (")[0]
    'cpu'
    """
    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({cpu_name()}), {torch.get_num_threads()} thread(s)"


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return "CPU"


def set_threads(threads: int | None) -> None:
    """Use so many CPU threads; None keeps torch's choice.

    Raises:
        InputError: for fewer than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads is {threads}; expected at least 1")
    torch.set_num_threads(threads)
