"""Environments of a few lines, which gymnasium finds as "tests.rollout.environments:NAME"."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counter(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Observes its seed and how many actions it took; over after `length` of them, or never."""

    def __init__(self, length: int | None = 20, fails_at: int = -1, width: int = 2) -> None:
        self.action_space = spaces.Box(-1e9, 1e9, (width,), np.float32)
        self.observation_space = spaces.Dict({"agent_pos": spaces.Box(-1e9, 1e9, (2,), np.float32)})
        self._length, self._fails_at = length, fails_at
        self._taken, self._seed = 0, 0

    def _seen(self) -> dict[str, np.ndarray]:
        return {"agent_pos": np.array([self._seed, self._taken], np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._taken, self._seed = 0, seed or 0
        return self._seen(), {}

    def step(self, action: np.ndarray) -> Any:
        self._taken += 1
        if self._taken == self._fails_at:
            raise RuntimeError("the belt is\nbroken")
        return self._seen(), 0.0, self._taken == self._length, False, {}


class Camera(Counter):
    """Observes a frame, too, with its channels last."""

    def __init__(self, size: int = 40) -> None:
        super().__init__()
        self._size = size
        pixels = spaces.Box(0, 255, (size, 48, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {"agent_pos": spaces.Box(-1e9, 1e9, (3,), np.float32), "pixels": pixels}
        )

    def _seen(self) -> dict[str, np.ndarray]:
        pixels = np.zeros((self._size, 48, 3), np.uint8)
        pixels[0, 5] = (1, 2, self._taken)
        return {"agent_pos": np.array([self._seed, self._taken, 0], np.float32), "pixels": pixels}


for kind in (Counter, Camera):
    gymnasium.register(
        kind.__name__ + "-v0", entry_point=kind, disable_env_checker=True, order_enforce=False
    )
