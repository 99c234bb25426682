"""Published networks with random weights: calls, synthetic chunks, real chunks that are cut."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import Document
from benchmarks.engine import roofline
from benchmarks.engine.chunks import DDPM_100
from benchmarks.engine.network import latency_table
from benchmarks.engine.plan import Budget
from benchmarks.engine.rounds import CALLS_OF_MEASURE_ROUND, measure_cut_chunks, measure_round
from benchmarks.engine.synthetic import (
    MEMORY_MIB,
    RoundRows,
    measure_sizes_apart,
    random_config,
    random_policy,
    synthetic_chunks,
    time_outside,
)
from para_policy.errors import ParaPolicyError
from para_policy.inference import EngineConfig
from para_policy.policies.policy import DiffusionPolicy
from para_policy.samplers.deadline import LatencyTable

_MOST = 21
"""Measurements of a round."""

Solves = Mapping[tuple[str, str], Sequence[RoundRows]]


@dataclass(frozen=True)
class Large:
    """What the measurements share.

    Attributes:
        trained: the policy whose rounds are taken.
        solves: rows of its rounds, by process and sampler.
        engines: by label; those on which the large networks run.
        roof: of the device.
        known: entries `network` and `chunks` of the trained policy.
    """

    trained: DiffusionPolicy
    solves: Solves
    device: str
    engines: Mapping[str, EngineConfig]
    roof: roofline.Roof
    known: Document

    def measure(self, networks: Sequence[str], seconds: float) -> dict[str, Any]:
        """Entries of the document: `large`, `synthetic`, `cut_chunks` and `rounds`."""
        found: dict[str, Any] = {"large": [], "synthetic": [], "cut_chunks": [], "rounds": []}
        parts = {(name, part): 1.0 for name in networks for part in ("calls", "chunks")}
        budget = Budget(seconds, {" ".join(key): weight for key, weight in parts.items()})
        for name in networks:
            for key, entries in self._network(name, budget).items():
                found[key] += entries
        return found

    def _network(self, name: str, budget: Budget) -> dict[str, list[Any]]:
        config = random_config(name, self.trained.config)
        policy = random_policy(config, self.device, EngineConfig())
        calls = measure_sizes_apart(policy, self.engines, budget.share(f"{name} calls"))
        tables = {
            engine: table
            for engine in self.engines
            if (table := latency_table(calls, engine)) is not None
        }
        own = time_outside(self.known["chunks"], self.known["network"], self.solves)
        expected = synthetic_chunks(name, tables, self.solves, own)
        real: dict[str, list[Any]] = {"cut_chunks": [], "rounds": []}
        shares = Budget(budget.share(f"{name} chunks"), dict.fromkeys(tables, 1.0))
        for engine, table in tables.items():
            wanted = dataclasses.replace(self.engines[engine], memory_limit_mib=MEMORY_MIB)
            policy.runtime = policy.runtime.on(wanted)
            try:
                found = self._real(name, policy, engine, table, expected, shares.share(engine))
            except (ParaPolicyError, RuntimeError, MemoryError) as error:
                print(f"{name} network on {engine}: {error}")
            else:
                real = {key: entries + found[key] for key, entries in real.items()}
        points = roofline.points(name, config, calls, self.engines, self.roof)
        return {
            "large": [{"network": name, "calls": calls, "points": points}],
            "synthetic": expected,
            **real,
        }

    def _real(
        self,
        name: str,
        policy: DiffusionPolicy,
        engine: str,
        table: LatencyTable,
        expected: Sequence[Document],
        seconds: float,
    ) -> dict[str, list[Any]]:
        """Chunks and a round of the random policy on one engine, as far as the time goes."""
        end = time.monotonic() + seconds
        chunks = measure_cut_chunks(name, policy, engine, self.trained, expected, seconds / 2)
        repeats = int((end - time.monotonic()) / (CALLS_OF_MEASURE_ROUND * table.predict(100)))
        if repeats < 2:
            return {"cut_chunks": chunks, "rounds": []}
        round_s = measure_round(policy, self.trained, DDPM_100, min(repeats - 1, _MOST))
        work = roofline.work_of(policy.config, DDPM_100.steps)
        least = self.roof.seconds(work, self.engines[engine].precision)
        entry = {"network": name, "engine": engine, "ms": 1e3 * round_s}
        return {"cut_chunks": chunks, "rounds": [{**entry, "times_roof": round_s / least}]}
