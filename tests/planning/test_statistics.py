from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from para_policy.execution.chunk import ActionChunk
from para_policy.planning import statistics
from para_policy.planning.chunks import PlannedChunk
from para_policy.planning.statistics import PlanStatistics, gpu_memory
from tests.planning.fake_policy import LOCKSTEP


def plan(latency_s: float, rounds: int = 3, residual: float = 0.1) -> PlannedChunk:
    chunk = ActionChunk(0, 100, np.zeros((2, 1)))
    stats = SimpleNamespace(rounds=rounds, residual=residual)
    return PlannedChunk(
        chunk, stats, LOCKSTEP, 0, latency_s, 0, 0, None, None, 1, 0, "", withheld=False
    )


def test_percentiles_are_of_the_last_200_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(statistics, "time", clock)
    numbers = PlanStatistics()
    assert numbers.values() == {}
    for index in range(300):
        now = 0.5 * index
        numbers.add(plan(1e-3 * index, rounds=index % 2, residual=index / 1000))
    values = numbers.values()
    assert values["chunks_counted"] == 200
    assert values["planning_rate_hz"] == pytest.approx(2.0)
    assert values["latency_p50_ms"] == pytest.approx(199.5)
    assert values["latency_p95_ms"] == pytest.approx(100 + 0.95 * 199)
    assert values["latency_p99_ms"] == pytest.approx(100 + 0.99 * 199)
    assert values["rounds_mean"] == 0.5
    assert values["residual_max"] == 0.299
    now += 100  # nothing planned for long
    assert numbers.values()["planning_rate_hz"] == 0


def test_no_gpu_memory_on_the_cpu() -> None:
    assert gpu_memory(torch.device("cpu")) == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_gpu_memory_of_this_process() -> None:
    held = torch.zeros(2**20, device="cuda")
    values = gpu_memory(held.device)
    assert values["gpu_memory_peak_mib"] >= values["gpu_memory_mib"] >= 4
