"""PushT as a simulated task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.pusht.drawing import draw, moments
from sim.pusht.env import (
    CONTROL_DT,
    MAX_STEPS,
    SUCCESS_COVERAGE,
    PushT,
    check_inputs,
    legacy_start_state,
    simulator,
)
from sim.tasks.episode import Episode
from sim.tasks.task import Array, Inputs, Score, SimulatedTask


class PushTTask(SimulatedTask):
    """Push a T onto its goal with a round tool, the original project's task."""

    name = "pusht"
    title = "PushT"
    packages = ("gym-pusht", "pymunk")
    control_dt = CONTROL_DT
    max_steps = MAX_STEPS
    action_dim = 2
    actions = "the agent's target x and y"
    unit = "px"
    starts = "legacy start states"
    score = Score("coverage", full=SUCCESS_COVERAGE, success_above=SUCCESS_COVERAGE)
    reward_note = (
        "Max reward is the best coverage of the goal during the episode, divided by 0.95 and cut "
        "off at 1, where the episode ends in success."
    )
    frames_per_s = round(1 / CONTROL_DT)

    def require(self) -> None:
        simulator()

    def check_inputs(self, inputs: Inputs) -> None:
        check_inputs(inputs)

    def start_state(self, seed: int) -> Array:
        return legacy_start_state(seed)

    def scene(self, inputs: Inputs) -> PushT:
        return PushT(inputs)

    def pictures(
        self, episode: Episode, steps: Sequence[int], size: int
    ) -> list[NDArray[np.uint8]]:
        shown = moments(episode)
        return [draw(shown[step], size) for step in steps]


PUSHT = PushTTask()
