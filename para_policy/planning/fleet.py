"""The robots that one policy serves, planned for in batches. Free of ROS."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from para_policy.planning.chunks import ChunkRequest, ChunkSolution, PlannedChunk
from para_policy.planning.planner import Planner
from para_policy.planning.settings import PlannerSettings
from para_policy.planning.solver import Cancelled, Solver

if TYPE_CHECKING:
    from para_policy import DiffusionPolicy

ALONE = ("",)
"""Names of the robots where there is only one."""


class Fleet:
    """One policy and a planner for each robot.

    A step plans for all robots that want a chunk at that moment, in one batch: each sample has its
    own window, so a chunk does not depend on the others beyond rounding. A robot that becomes due
    during a step is served by the next one.

    `plan` takes as long as the network does and belongs into one worker thread. `change` waits for
    a step in progress only to try another sampler. Everything else returns at once.

    Attributes:
        planners: by the robot's name.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        settings: PlannerSettings,
        seed: int,
        robots: Sequence[str] = ALONE,
    ) -> None:
        self._solver = Solver(policy)
        self._settings = settings
        self.planners: Mapping[str, Planner] = {
            robot: Planner(policy.config, settings, seed) for robot in robots
        }

    @property
    def settings(self) -> PlannerSettings:
        return self._settings

    def warm_up(self) -> None:
        """Solve twice from zeros: finds bad settings early and keeps the first real plan fast.

        Raises:
            ParaPolicyError: when sampler, scheduler, steps and checkpoint do not go together.
        """
        self._take_over(self._settings, self._expected_latency_s(self._settings))

    def change(self, settings: PlannerSettings) -> None:
        """Use other settings from the next chunks on.

        Raises:
            ParaPolicyError: when another sampler does not go together with the policy, which is
                found out by a solve; nothing has changed then.
        """
        new = settings.sampler is not self._settings.sampler
        self._take_over(settings, self._expected_latency_s(settings) if new else None)

    def reset(self, seed: int) -> None:
        """Begin a new episode for every robot."""
        for planner in self.planners.values():
            planner.reset(seed)

    def plan(self, now_ns: int) -> dict[str, PlannedChunk | Exception]:
        """The chunks that are wanted now, by robot; an error where there can be none.

        An error of one robot is its own, and uses up no noise.

        Raises:
            Cancelled: after `cancel`.
        """
        started_s = time.perf_counter()
        requests: dict[str, ChunkRequest] = {}
        plans: dict[str, PlannedChunk | Exception] = {}
        for robot, planner in self.planners.items():
            try:
                if request := planner.request(now_ns, started_s):
                    requests[robot] = request
            except Exception as error:
                plans[robot] = error
        solutions = self._solve(requests)
        added_s = max((one.settings.added_latency_s for one in requests.values()), default=0.0)
        if added_s:
            time.sleep(added_s)
        latency_s = time.perf_counter() - started_s
        for robot, solution in solutions.items():
            if isinstance(solution, Exception):
                plans[robot] = solution
                continue
            planned = self.planners[robot].finish(requests[robot], solution, latency_s)
            if planned is not None:
                plans[robot] = planned
        return plans

    def cancel(self) -> None:
        """End the step in progress before its next rounds, and every later one."""
        self._solver.cancel()

    def _solve(
        self, requests: Mapping[str, ChunkRequest], share: float = 1.0
    ) -> dict[str, ChunkSolution | Exception]:
        """One robot's bad luck must not stop the others: a batch that fails is tried one by one.

        Args:
            share: as for `Solver.solve`.
        """
        try:
            solved = self._solver.solve(list(requests.values()), share) if requests else []
        except Cancelled:
            raise
        except Exception as error:
            if len(requests) == 1:
                return dict.fromkeys(requests, error)
            alone: dict[str, ChunkSolution | Exception] = {}
            for done, (robot, request) in enumerate(requests.items()):
                alone |= self._solve({robot: request}, 1 / (len(requests) - done))
            return alone
        return dict(zip(requests, solved, strict=True))

    def _expected_latency_s(self, settings: PlannerSettings) -> float:
        robots = len(self.planners)
        self._solver.attempt(settings, robots)  # pays for lazy initialisation
        self._solver.prepare(settings, robots)
        return self._solver.attempt(settings, robots) + settings.added_latency_s

    def _take_over(self, settings: PlannerSettings, latency_s: float | None) -> None:
        self._settings = settings
        for planner in self.planners.values():
            planner.change(settings, latency_s)
