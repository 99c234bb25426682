"""Published networks with random weights: calls, synthetic chunks, real chunks that are cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import Document
from benchmarks.engine import roofline
from benchmarks.engine.chunks import DDPM_100
from benchmarks.engine.network import latency_table
from benchmarks.engine.plan import Budget, Clock
from benchmarks.engine.rounds import CALLS_OF_MEASURE_ROUND, measure_cut_chunks, measure_round
from benchmarks.engine.synthetic import (
    MEMORY_MIB,
    RoundRows,
    measure_sizes,
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
        solves: finds rows of its rounds, by process and sampler, in the time that there is.
        device: of the networks.
        roof: of the device.
        known: entries `network` and `chunks` of the trained policy.
    """

    trained: DiffusionPolicy
    solves: Callable[[Clock], Solves]
    device: str
    roof: roofline.Roof
    known: Document

    def measure(
        self, name: str, engines: Mapping[str, EngineConfig], clock: Clock
    ) -> dict[str, list[Any]]:
        """Entries `large`, `synthetic`, `cut_chunks` and `rounds` of the document, of one network.

        Args:
            name: of the network.
            engines: by label.
        """
        config = random_config(name, self.trained.config)
        policy = random_policy(config, self.device, EngineConfig())
        runtimes = {
            label: policy.runtime.on(dataclasses.replace(engine, memory_limit_mib=MEMORY_MIB))
            for label, engine in engines.items()
        }
        calls = measure_sizes(policy, runtimes, Clock(clock.left / 2))
        tables = {
            engine: table
            for engine in engines
            if (table := latency_table(calls, engine)) is not None
        }
        solves = self.solves(Clock(clock.left / 3))
        own = time_outside(self.known["chunks"], self.known["network"], solves)
        expected = synthetic_chunks(name, tables, solves, own)
        real: dict[str, list[Any]] = {"cut_chunks": [], "rounds": []}
        shares = Budget(clock.left, dict.fromkeys(tables, 1.0))
        for engine, table in tables.items():
            policy.runtime = runtimes[engine]
            try:
                found = self._real(name, policy, engine, table, expected, shares.share(engine))
            except (ParaPolicyError, RuntimeError, MemoryError) as error:
                print(f"{name} network on {engine}: {error}")
            else:
                real = {key: entries + found[key] for key, entries in real.items()}
        points = roofline.points(name, config, calls, engines, self.roof)
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
        clock: Clock,
    ) -> dict[str, list[Any]]:
        """Chunks and a round of the random policy on one engine, as far as the time goes."""
        half = Clock(clock.left / 2)
        chunks = measure_cut_chunks(name, policy, engine, self.trained, expected, half)
        repeats = int(clock.left / (CALLS_OF_MEASURE_ROUND * table.predict(DDPM_100.steps)))
        if repeats < 2:
            return {"cut_chunks": chunks, "rounds": []}
        round_s = measure_round(policy, self.trained, DDPM_100, min(repeats - 1, _MOST))
        work = roofline.work_of(policy.config, DDPM_100.steps)
        least = self.roof.seconds(work, policy.runtime.engine.config.precision)
        entry = {"network": name, "engine": engine, "ms": 1e3 * round_s}
        return {"cut_chunks": chunks, "rounds": [{**entry, "times_roof": round_s / least}]}
