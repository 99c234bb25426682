"""Live episode: a task that is played action by action and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from para_policy.files import check_output_folder, replace
from sim.tasks.task import Array, Inputs, Observation, SimulatedTask


class LiveEpisode:
    """An episode in progress: starts from a seed, ends in success or after `max_steps` actions.

    Args:
        inputs: what the scene observes.
        max_steps: as the task says, if None.

    Attributes:
        scene: the simulator.
        seed: of the start state.
        done: nothing more is to be played.
        states: of the scene, before the first and after each action.
        scores: what the task measured after each action.
    """

    def __init__(self, task: SimulatedTask, inputs: Inputs, max_steps: int | None = None) -> None:
        self.scene = task.scene(inputs)
        self._score = task.score
        self._max_steps = task.max_steps if max_steps is None else max_steps
        self.begin(0)

    def begin(self, seed: int) -> Observation:
        """Start anew from the start state of `seed`.

        Raises:
            InputError: when the seed is out of range.
        """
        observation = self.scene.begin(seed)
        self.seed = seed
        self.done = False
        self.states = [self.scene.state()]
        self._actions: list[Array] = []
        self.scores: list[float] = []
        return observation

    def step(self, action: ArrayLike) -> Observation:
        """Play one action (action_dim,)."""
        result = self.scene.step(action)
        self._actions.append(np.asarray(action, dtype=np.float64))
        self.states.append(self.scene.state())
        self.scores.append(result.score)
        self.done = self._success or len(self._actions) == self._max_steps
        return result.observation

    @property
    def _success(self) -> bool:
        return self._score.success(self.scores[-1])

    def result(self) -> dict[str, Any]:
        """The score, ready for JSON; at least one action must have been played."""
        return {
            "seed": self.seed,
            "max_reward": float(self._score.rewards(self.scores).max()),
            "success": self._success,
            f"final_{self._score.name}": self.scores[-1],
            "steps": len(self._actions),
        }

    def save(self, path: Path) -> None:
        """Write the episode as .npz: states (T+1, width), actions (T, action_dim), rewards (T,), and
        under the name of the score what was measured, (T,).

        Raises:
            InputError: if the file cannot be written.
        """
        check_output_folder(path.parent)
        arrays: dict[str, Any] = {
            "seed": self.seed,
            "states": np.stack(self.states),
            "actions": np.stack(self._actions),
            "rewards": self._score.rewards(self.scores),
            self._score.name: np.array(self.scores),
        }

        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as file:  # numpy adds a suffix to a path that has none
                np.savez_compressed(file, **arrays)

        replace(path, write)
