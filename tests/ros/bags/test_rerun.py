"""Chunks that are solved again from their records."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from para_policy import load_policy
from para_policy.execution.chunk import ActionChunk
from para_policy.planning.chunks import ChunkRequest, ChunkSolution, PreviousChunk
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.solver import Solver
from para_policy.ros.bags.records import ChunkRecord
from para_policy.ros.bags.rerun import Rerun
from tests.checkpoint import random_observations
from tests.planning.fake_policy import DT, T0


def record(index: int, step: int, made: ChunkSolution, chunk: ActionChunk) -> ChunkRecord:
    """What a bag says of a chunk."""
    return ChunkRecord(
        index=index,
        stamp_ns=T0 + step * DT,
        out_ns=0,
        received_ns=0,
        seed=index,
        settings="",
        observation="",
        executed=made.executed,
        committed=made.committed or 0,
        batch=1,
        rounds=made.stats.rounds,
        converged=made.stats.converged,
        latency_ms=1.0,
        chunk=chunk,
    )


def test_a_chunk_that_goes_on_with_one_before_a_withheld_one_is_solved_again(
    checkpoint: Path,
) -> None:
    policy = load_policy(checkpoint)
    settings = PlannerSettings(
        sampler=policy.sampler("x0"),
        scheduler=None,
        steps=None,
        dt_ns=DT,
        max_age_ns=5 * DT,
        warm_start=True,
        real_time_chunking="hard",
    )
    seen = [{name: values[k] for name, values in random_observations(2).items()} for k in range(2)]
    solver, rerun = Solver(policy), Rerun(policy)
    previous: PreviousChunk | None = None
    for observation, (index, step) in zip(seen, [(0, 0), (2, 4)], strict=True):  # 1 was withheld
        request = ChunkRequest(
            settings, observation, T0 + step * DT, index, index, time.perf_counter(), previous,
            committed=2,
        )  # fmt: skip
        (made,) = solver.solve([request])
        previous = made.as_previous
        again = rerun.solve(record(index, step, made, made.chunk), settings, observation)
        assert again.reason == ""
        np.testing.assert_array_equal(again.chunk.actions, made.chunk.actions)
    assert (made.executed, made.committed) == (4, 2)
