"""Real-time chunking: the robot goes on with a chunk while the next one is planned."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from para_policy import DiffusionPolicy, samplers
from para_policy.execution.player import ChunkPlayer, PlayerSettings
from para_policy.planning.chunks import PlannedChunk
from para_policy.planning.fleet import Fleet
from para_policy.policies.build import build_network
from para_policy.policies.normalizer import LinearNormalizer
from tests.checkpoint import tiny_config
from tests.planning.fake_policy import DT, REAL_TIME, T0, make, observe

CHUNKING = replace(REAL_TIME, warm_start=True, real_time_chunking="soft")
MS = 1_000_000


@pytest.mark.parametrize(
    ("latency_s", "committed"),
    [(0.0, 1), (0.09, 1), (0.15, 2), (0.21, 3), (5.0, 3)],  # 3: what is left of 8 after 5 steps
)
def test_the_actions_that_run_during_a_solve_are_committed(
    latency_s: float, committed: int
) -> None:
    planner, policy = make(replace(CHUNKING, replan_steps=5))
    now = observe(planner, 0)
    assert planner.plan(now).committed is None  # there is nothing to go on from
    planner.fleet.planners[""].change(planner.settings, latency_s)
    plan = planner.plan(observe(planner, 5))
    assert (plan.executed, plan.committed) == (5, committed)
    options = policy.options[-1]
    assert options["pulled"].tolist() == [False]  # nobody has said what the action is
    assert (options["executed"], options["frozen"], options["overlap"]) == (
        [5],
        [committed],
        "soft",
    )


def test_late_observations_commit_more() -> None:
    planner, _ = make(replace(CHUNKING, replan_steps=4))
    planner.plan(observe(planner, 0))
    planner.fleet.planners[""].change(planner.settings, 0.0)
    stamp = observe(planner, 4)
    assert planner.plan(stamp + 2 * DT + DT // 2).committed == 3


@pytest.mark.parametrize(
    ("offset_ms", "committed"), [(-40, 6), (-20, 5), (0, 4), (20, 3), (40, 2), (100, 0)]
)
def test_actions_that_the_executor_plays_earlier_or_later_are_committed_by_their_times(
    offset_ms: int, committed: int
) -> None:
    dt_ns, latency_ns, offset_ns = 20 * MS, 65 * MS, offset_ms * MS
    settings = replace(CHUNKING, dt_ns=dt_ns, offset_ns=offset_ns, replan_steps=2)
    planner, _ = make(settings)
    planner.plan(observe(planner, 0))
    planner.fleet.planners[""].change(settings, latency_ns / 1e9)
    plan = planner.plan(observe(planner, 2 * dt_ns / DT))
    assert (plan.executed, plan.committed) == (2, committed)
    player = ChunkPlayer(1, PlayerSettings(offset_ns=offset_ns))
    arrival_ns = plan.chunk.stamp_ns + latency_ns
    player.offer(replace(plan.chunk, actions=np.arange(8.0)[:, None]), arrival_ns)
    playing = player.action_at(arrival_ns)
    assert (-1 if playing is None else playing[0]) == committed - 1


@pytest.mark.parametrize("period", [1 / 3, 2 / 3, 0.4, 0.83, 1.3])
@pytest.mark.parametrize("replan_steps", [1, 5])
def test_chunks_go_on_whatever_the_period_of_the_camera(period: float, replan_steps: int) -> None:
    """Its images come between the steps of the chunk before: half of the chunks began afresh."""
    planner, policy = make(replace(CHUNKING, replan_steps=replan_steps))
    before: PlannedChunk | None = None
    for frame in range(60):
        now = observe(planner, frame * period, value=frame)
        plan = planner.plan(now)
        if plan is None:
            continue
        if before is not None:
            steps = (plan.chunk.stamp_ns - before.chunk.stamp_ns) / DT
            assert steps == pytest.approx(round(steps), abs=0.25)
            assert plan.committed is not None
        before = plan
        assert 0 <= now - plan.chunk.stamp_ns < DT
        seen = policy.observations[-1]["x"][-1, 0] * period * DT
        assert abs(T0 + seen - plan.chunk.stamp_ns) <= max(period / 2, 0.25) * DT + 1


@pytest.mark.parametrize(("offset_s", "due"), [(-0.2, 5), (0.0, 7), (0.1, 8)])
def test_a_chunk_that_is_played_earlier_is_replaced_earlier(offset_s: float, due: int) -> None:
    planner, _ = make(replace(REAL_TIME, offset_ns=round(1e9 * offset_s)))
    planner.plan(observe(planner, 0))
    planner.fleet.planners[""].change(planner.settings, 0.0)
    assert next(step for step in range(1, 10) if planner.plan(observe(planner, step))) == due


def test_a_chunk_goes_on_with_the_last_one_that_was_sent() -> None:
    planner, policy = make(replace(CHUNKING, replan_steps=3, deadline_s=0.15, max_overruns=1))
    sent = planner.plan(observe(planner, 0))
    policy.during = lambda: threading.Event().wait(0.16)
    late = planner.plan(observe(planner, 3))
    assert (sent.withheld, late.withheld, late.executed) == (False, True, 3)
    policy.during = lambda: None
    in_time = planner.plan(observe(planner, 4))
    # One step after the withheld chunk, of which the robot has got nothing.
    assert (in_time.withheld, in_time.executed, in_time.committed >= 2) == (False, 4, True)
    assert planner.plan(observe(planner, 7)).executed == 3


def test_nothing_of_a_withheld_chunk_is_committed() -> None:
    planner, policy = make(replace(CHUNKING, deadline_s=0.15, max_overruns=1))
    policy.during = lambda: threading.Event().wait(0.16)
    assert planner.plan(observe(planner, 0)).withheld
    policy.during = lambda: None
    plan = planner.plan(observe(planner, 3))
    assert (plan.withheld, plan.executed, plan.committed) == (False, None, None)
    assert "frozen" not in policy.options[-1]


@pytest.mark.parametrize("step", [8, 15, 16])
def test_a_chunk_that_has_run_out_commits_nothing(step: int) -> None:
    planner, policy = make(CHUNKING)
    planner.plan(observe(planner, 0))
    plan = planner.plan(observe(planner, step))
    assert (plan.executed, plan.committed) == (None, None)
    assert not {"previous", "frozen"} & policy.options[-1].keys()


@pytest.mark.parametrize("overlap", ["hard", "soft"])
def test_a_pause_of_any_length_ends_with_a_chunk(overlap: str) -> None:
    """With three observations the policy predicts two actions of the past, which are not to come."""
    config = tiny_config(5).model_copy(update={"n_obs_steps": 3, "first_action": 2})
    torch.manual_seed(0)
    board = np.array([[0.0] * 16, [512.0] * 16], dtype=np.float32)
    sizes = {"environment_state": 16, "agent_pos": 2, "action": 2}
    normalizers = {name: LinearNormalizer.fit(board[:, :size]) for name, size in sizes.items()}
    policy = DiffusionPolicy(config, build_network(config).state_dict(), normalizers)
    settings = replace(
        CHUNKING, sampler=samplers.get("x0"), real_time_chunking=overlap, replan_steps=6
    )
    for pause in range(6, config.horizon + 2):
        robots = Fleet(policy, settings, 5)
        for step in (0, pause):
            for name, shape in config.inputs.items():
                robots.planners[""].observe(name, T0 + step * DT, np.full(shape, 200.0))
            plan = robots.plan(T0 + step * DT)[""]
            assert not isinstance(plan, Exception), (pause, plan)
        assert (plan.committed is None) == (pause >= 8)
