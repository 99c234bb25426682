"""A planner whose policy answers at once, and remembers what it was asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from para_policy import samplers
from para_policy.planning.chunks import PlannedChunk
from para_policy.planning.fleet import Fleet
from para_policy.planning.planner import Planner
from para_policy.planning.settings import PlannerSettings

DT = 100_000_000
T0 = 1_700_000_000 * 10**9
LOCKSTEP = PlannerSettings(
    sampler=samplers.get("sequential"),
    scheduler=None,
    steps=None,
    dt_ns=DT,
    max_age_ns=5 * DT,
    lockstep=True,
)
REAL_TIME = replace(LOCKSTEP, lockstep=False)


class FakePolicy:
    """Remembers what it is asked; its actions count up."""

    def __init__(self, **cameras: tuple[int, ...]) -> None:
        inputs = {"x": (2,), "y": (), **cameras}
        self.config = SimpleNamespace(
            inputs=inputs, cameras=tuple(cameras), n_obs_steps=2, first_action=1, action_dim=1
        )
        self.seeds: list[int] = []
        self.options: list[dict[str, Any]] = []
        self.observations: list[dict[str, np.ndarray]] = []
        self.error: Exception | None = None
        self.during = lambda: None

    def sample(self, observation: dict[str, np.ndarray], *, seed: Any, **options: Any) -> Any:
        self.during()
        options.pop("poll")()
        if self.error is not None:
            raise self.error
        self.seeds.append(seed)
        self.options.append(options)
        self.observations.append(observation)
        return FakeResult() if isinstance(seed, int) else FakeBatch(len(seed))


class FakeResult(SimpleNamespace):
    def __init__(self) -> None:
        prediction = np.arange(-1.0, 15.0)[:, None]
        super().__init__(
            actions=prediction[1:9],
            prediction=prediction,
            sample=prediction,
            stats=SimpleNamespace(converged=True, residual=0.0, error_bound=np.zeros(1)),
        )


class FakeBatch:
    """Results of several robots."""

    def __init__(self, size: int) -> None:
        self.results = [FakeResult() for _ in range(size)]

    def one(self, row: int) -> FakeResult:
        return self.results[row]


class Lone:
    """A fleet of one robot, and its planner."""

    def __init__(self, policy: FakePolicy, settings: PlannerSettings) -> None:
        self.fleet = Fleet(policy, settings, seed=5)
        self.change, self.warm_up = self.fleet.change, self.fleet.warm_up
        self.planner = planner = self.fleet.planners[""]
        self.observe, self.reject, self.reset = planner.observe, planner.reject, planner.reset
        self.hold_reason, self.withheld_reason = planner.hold_reason, planner.withheld_reason
        self.observation_ages_s = planner.observation_ages_s

    @property
    def settings(self) -> PlannerSettings:
        return self.fleet.settings

    def plan(self, now_ns: int) -> PlannedChunk | None:
        """Raises where the policy fails, which a fleet reports instead."""
        plan = self.fleet.plan(now_ns).get("")
        if isinstance(plan, Exception):
            raise plan
        return plan


def make(
    settings: PlannerSettings = LOCKSTEP, **cameras: tuple[int, ...]
) -> tuple[Lone, FakePolicy]:
    policy = FakePolicy(**cameras)
    return Lone(policy, settings), policy


def observe(planner: Lone | Planner, step: float, value: float = 0.0) -> int:
    stamp = T0 + round(step * DT)
    planner.observe("x", stamp, np.array([value, value]))
    planner.observe("y", stamp, np.array([value]))
    return stamp
