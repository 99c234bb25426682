"""Live episode: PushT that is played action by action and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.files import check_output_folder, replace
from sim.pusht.env import MAX_STEPS, STATE_INPUTS, Observation, PushT, legacy_start_state
from sim.pusht.episode import Array


class LiveEpisode:
    """An episode in progress: starts from a seed, ends in success or after `max_steps` actions.

    Args:
        inputs: what the board observes, as for `PushT`.

    Attributes:
        seed: of the start state.
        done: nothing more is to be played.
        states: (5,) each, before the first and after each action.
        coverage: after each action.
    """

    def __init__(
        self,
        inputs: Mapping[str, tuple[int, ...]] = STATE_INPUTS,
        max_steps: int = MAX_STEPS,
    ) -> None:
        self._board = PushT(inputs)
        self._max_steps = max_steps
        self.begin(0)

    def begin(self, seed: int) -> Observation:
        """Start anew from the legacy start state of `seed`.

        Raises:
            InputError: when the seed is out of range.
        """
        observation = self._board.reset(legacy_start_state(seed))
        self.seed = seed
        self.done = False
        self._success = False
        self.states = [self._board.state()]
        self._actions: list[Array] = []
        self._rewards: list[float] = []
        self.coverage: list[float] = []
        return observation

    def step(self, action: ArrayLike) -> Observation:
        """Play one action (2,), pixels."""
        result = self._board.step(action)
        self._actions.append(np.asarray(action, dtype=np.float64))
        self.states.append(self._board.state())
        self._rewards.append(result.reward)
        self.coverage.append(result.coverage)
        self._success = result.success
        self.done = result.success or len(self._actions) == self._max_steps
        return result.observation

    def observation(self) -> Observation:
        return self._board.observation()

    def image(self, size: int) -> NDArray[np.uint8]:
        return self._board.image(size)

    def result(self) -> dict[str, Any]:
        """The score, ready for JSON; at least one action must have been played."""
        return {
            "seed": self.seed,
            "max_reward": max(self._rewards),
            "success": self._success,
            "final_coverage": self.coverage[-1],
            "steps": len(self._actions),
        }

    def save(self, path: Path) -> None:
        """Write states (T+1, 5), actions (T, 2), rewards (T,) and coverage (T,) as .npz.

        Raises:
            InputError: if the file cannot be written.
        """
        check_output_folder(path.parent)
        arrays: dict[str, Any] = {
            "seed": self.seed,
            "states": np.stack(self.states),
            "actions": np.stack(self._actions),
            "rewards": np.array(self._rewards),
            "coverage": np.array(self.coverage),
        }

        def write(unfinished: Path) -> None:
            with unfinished.open("wb") as file:  # numpy adds a suffix to a path that has none
                np.savez_compressed(file, **arrays)

        replace(path, write)
