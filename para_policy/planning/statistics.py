"""Numbers for diagnostics: of the last chunks, and of the engine that solves them."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from para_policy.planning.chunks import PlannedChunk

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy
    from para_policy.samplers import Sampler

_CHUNKS = 200
_RATE_WINDOW_S = 10.0


@dataclass(frozen=True)
class _Entry:
    at_s: float
    latency_s: float
    rounds: float
    residual: float


class PlanStatistics:
    """Numbers of the last 200 plans, withheld ones included. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque(maxlen=_CHUNKS)

    def add(self, plan: PlannedChunk) -> None:
        rounds, residual = float(plan.stats.rounds), float(plan.stats.residual)
        entry = _Entry(time.monotonic(), plan.latency_s, rounds, residual)
        with self._lock:
            self._entries.append(entry)

    def values(self) -> dict[str, Any]:
        """Empty before the first plan; the rate is that of the last ten seconds."""
        with self._lock:
            entries = list(self._entries)
        if not entries:
            return {}
        latencies = np.array([entry.latency_s for entry in entries])
        percentiles = {
            f"latency_p{p}_ms": 1e3 * float(np.percentile(latencies, p)) for p in (50, 95, 99)
        }
        return {
            "planning_rate_hz": _rate([entry.at_s for entry in entries], time.monotonic()),
            **percentiles,
            "rounds_mean": float(np.mean([entry.rounds for entry in entries])),
            "residual_max": float(np.max([entry.residual for entry in entries])),
            "chunks_counted": len(entries),
        }


def _rate(times_s: list[float], now_s: float) -> float:
    recent = [time_s for time_s in times_s if time_s > now_s - _RATE_WINDOW_S]
    if len(recent) < 2:
        return len(recent) / _RATE_WINDOW_S
    return (len(recent) - 1) / (recent[-1] - recent[0])


def engine_facts(policy: DiffusionPolicy) -> dict[str, Any]:
    """Engine that runs the network, what it takes beside the weights, and the memory of a GPU."""
    engine = policy.runtime.engine
    facts: dict[str, Any] = {
        "engine": engine.label,
        "engine_memory_mib": engine.memory_bytes / 2**20,
    }
    if engine.passed_over:
        facts["engine_passed_over"] = "; ".join(engine.passed_over)
    return facts | gpu_memory(policy.device)


def recording_facts(sampler: Sampler) -> dict[str, Any]:
    """Recorded rounds: how many recordings, what they take, and how many chunks were solved without
    one; empty where nothing is recorded."""
    recordings = sampler.recordings
    if recordings is None:
        return {}
    return {
        "recordings": len(recordings),
        "recordings_memory_mib": recordings.memory_bytes / 2**20,
        "chunks_not_recorded": recordings.left_out,
    }


def gpu_memory(device: torch.device) -> dict[str, float]:
    """Memory of this process on a GPU, MiB: now, and the most so far; empty on the CPU."""
    if device.type != "cuda":
        return {}
    return {
        "gpu_memory_mib": torch.cuda.memory_allocated(device) / 2**20,
        "gpu_memory_peak_mib": torch.cuda.max_memory_allocated(device) / 2**20,
    }
