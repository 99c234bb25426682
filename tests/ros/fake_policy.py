"""A planner whose policy answers at once, and remembers what it was asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from para_policy import samplers
from para_policy.ros.plan import PlannerSettings
from para_policy.ros.planner import Planner

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
            inputs=inputs, cameras=tuple(cameras), n_obs_steps=2, first_action=1
        )
        self.seeds: list[int] = []
        self.options: list[dict[str, Any]] = []
        self.observations: list[dict[str, np.ndarray]] = []
        self.error: Exception | None = None
        self.during = lambda: None

    def sample(self, observation: dict[str, np.ndarray], *, seed: int, **options: Any) -> Any:
        self.during()
        if self.error is not None:
            raise self.error
        self.seeds.append(seed)
        self.options.append(options)
        self.observations.append(observation)
        prediction = np.arange(-1.0, 15.0)[:, None]
        return SimpleNamespace(
            actions=prediction[1:9], prediction=prediction, sample=prediction, stats=None
        )


def make(
    settings: PlannerSettings = LOCKSTEP, **cameras: tuple[int, ...]
) -> tuple[Planner, FakePolicy]:
    policy = FakePolicy(**cameras)
    return Planner(policy, settings, seed=5), policy


def observe(planner: Planner, step: float, value: float = 0.0) -> int:
    stamp = T0 + round(step * DT)
    planner.observe("x", stamp, np.array([value, value]))
    planner.observe("y", stamp, np.array([value]))
    return stamp
