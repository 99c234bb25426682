"""AlohaTransferCube as a simulated task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.aloha.env import (
    ACTION_NAMES,
    CONTROL_DT,
    FULL_REWARD,
    MAX_STEPS,
    Aloha,
    check_inputs,
    start_cube,
)
from sim.tasks.episode import Episode
from sim.tasks.task import Array, Inputs, Score, SimulatedTask


class AlohaTask(SimulatedTask):
    """The right arm picks up a cube and hands it to the left arm."""

    name = "aloha"
    title = "AlohaTransferCube"
    packages = ("gym-aloha", "mujoco", "dm-control")
    control_dt = CONTROL_DT
    max_steps = MAX_STEPS
    action_dim = len(ACTION_NAMES)
    actions = "six joints and a gripper of the left arm, then of the right one"
    unit = "rad"  # a gripper's way from closed to open counts as one
    starts = "start states of gym-aloha"
    score = Score("reward", full=FULL_REWARD, success_above=FULL_REWARD - 1)
    reward_note = (
        "Max reward is gym-aloha's best reward during the episode, divided by 4: 1 for a cube that the "
        "left gripper holds in the air, where the episode ends in success; 0.75 for one that it "
        "touches, 0.5 for one that the right gripper holds in the air, 0.25 for one that it touches."
    )
    frames_per_s = 25

    def require(self) -> None:
        start_cube(0)

    def check_inputs(self, inputs: Inputs) -> None:
        check_inputs(inputs)

    def start_state(self, seed: int) -> Array:
        return start_cube(seed)

    def scene(self, inputs: Inputs) -> Aloha:
        return Aloha(inputs)

    def check_drawing(self) -> None:
        Aloha().draw("angle", 16, 24)

    def pictures(
        self, episode: Episode, steps: Sequence[int], size: int
    ) -> list[NDArray[np.uint8]]:
        scene = Aloha()
        shown = []
        for step in steps:
            scene.place(episode.states[step])
            shown.append(scene.draw("angle", size, 2 * round(size * 2 / 3)))
        return shown


ALOHA = AlohaTask()
