"""Check of the device, engine, threads and memory with which the network runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from para_policy.errors import InputError
from para_policy.inference import AUTO, EngineConfig
from para_policy.inference.device import check_device, device_description, expected_engine
from para_policy.ros.doctor.case import Case
from para_policy.ros.doctor.report import Finding, fail, ok, warn

_GIB = 2**30
_LITTLE_GIB = 0.5


def check(case: Case) -> Iterator[Finding]:
    name = case.values.get("device") or "cpu"
    try:
        device = check_device(name)
    except InputError as error:
        yield fail("torch device", str(error), "choose one that is available, or mend its driver")
    else:
        yield ok("torch device", f"{device_description(device)}; torch {torch.__version__}")
        yield _engine(case, device)
        yield from _memory(device)
    yield _threads(int(case.values.get("torch_threads") or 0))


def _engine(case: Case, device: torch.device) -> Finding:
    name = case.values.get("engine") or AUTO
    try:
        config = EngineConfig(name, case.values.get("precision") or "float32")
        expected = expected_engine(config, device)
    except InputError as error:
        return fail("engine", str(error), "policy_node refuses to configure with this value")
    found = f"{name}: {expected.config.label}" if name == AUTO else expected.config.label
    if expected.passed_over:
        reasons = "; ".join(expected.passed_over)
        return warn("engine", f"{found}, passing over what is usually faster", reasons)
    return ok("engine", found)


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def _threads(wanted: int) -> Finding:
    threads, cpus = wanted or torch.get_num_threads(), usable_cpus()
    found = f"{threads} of torch on {cpus} CPU(s) that this process may use"
    if threads > cpus:
        advice = f"set torch_threads to at most {cpus}: more threads than CPUs wait for each other"
        return warn("threads", found, advice)
    return ok("threads", found)


def _memory(device: torch.device) -> Iterator[Finding]:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        try:
            free, total = _main_memory()
        except (OSError, KeyError):  # not Linux
            return
    found = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    if free < _LITTLE_GIB * _GIB:
        yield warn("memory", found, "end other programs, or use a smaller policy")
    else:
        yield ok("memory", found)


def _main_memory() -> tuple[int, int]:
    """Free and total, bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    return free, total
