"""The PushT simulator: gym-pusht, with the start states of the original project.

Units are pixels of the 512 x 512 board and radians; y points down, as on the screen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# pygame reads these when it is imported: draw without a display, and print no greeting.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from gym_pusht.envs.pusht import PushTEnv

from para_policy.errors import InputError

BOARD_SIZE = 512.0
"""Side of the square board, pixels."""
CONTROL_DT = 0.1
"""Time between two actions, seconds; the physics runs ten times as fast."""
MAX_STEPS = 300
"""Length of an episode that does not succeed, in actions."""
SUCCESS_COVERAGE = 0.95
"""An episode ends in success when more than this share of the goal is covered."""
GOAL_POSE = (256.0, 256.0, np.pi / 4)
"""Where the T belongs: x, y, angle."""

Array = NDArray[np.float64]
Observation = dict[str, Array]


def legacy_start_state(seed: int) -> Array:
    """Start state (agent x, agent y, block x, block y, block angle) of the original project.

    Newer versions of gym-pusht draw other states from a seed, so scores that are compared by
    seed, the published ones among them, need these draws. Their order matters.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"start state seed {seed} is out of range: expected 0 <= seed < 2**32")
    random = np.random.RandomState(seed)
    agent = [random.randint(50, 450), random.randint(50, 450)]
    block = [random.randint(100, 400), random.randint(100, 400)]
    angle = random.randn() * 2 * np.pi - np.pi
    return np.array([*agent, *block, angle], dtype=np.float64)


@dataclass(frozen=True)
class StepResult:
    """What one action led to."""

    observation: Observation
    coverage: float
    """Share of the goal that the T covers, 0 to 1."""
    reward: float
    """Coverage relative to success, clipped to 0 .. 1."""
    success: bool
    """Coverage above SUCCESS_COVERAGE: the episode is over."""


class PushT:
    """One PushT board.

    Observations are float64 in gym-pusht's own order of keypoints: `environment_state` (16,),
    eight vertices of the T as x, y pairs, and `agent_pos` (2,).
    """

    def __init__(self) -> None:
        self._env = PushTEnv(obs_type="environment_state_agent_pos")
        self._env.reset(options={"reset_to_state": legacy_start_state(0)})

    def reset(self, state: ArrayLike) -> Observation:
        """Start an episode from `state` (5,), as the original project does.

        The block's position is set before its angle, and turning it about its centre of mass
        then moves it: the state in effect is not the one that was asked for. The recorded
        demonstrations and all published scores come from this order.
        """
        start = _finite_vector(state, 5, "start state")
        self._env.reset(options={"reset_to_state": start})
        return self.observation()

    def place(self, state: ArrayLike) -> Observation:
        """Put agent and block exactly at `state` (5,), to show or compare a recorded state."""
        target = _finite_vector(state, 5, "state")
        self._env.agent.position = tuple(target[:2])
        self._env.block.angle = float(target[4])
        self._env.block.position = tuple(target[2:4])
        for body in (self._env.agent, self._env.block):  # shapes follow only at the next step
            self._env.space.reindex_shapes_for_body(body)
        return self.observation()

    def step(self, action: ArrayLike) -> StepResult:
        """Move the agent towards `action` (x, y) for CONTROL_DT seconds."""
        # With a float32 action gym-pusht would run its controller in float32.
        target = _finite_vector(action, 2, "action")
        raw, reward, success, _, info = self._env.step(target)
        return StepResult(_as_float64(raw), float(info["coverage"]), float(reward), bool(success))

    def observation(self) -> Observation:
        """Keypoints and agent position now."""
        return _as_float64(self._env.get_obs())

    def state(self) -> Array:
        """Agent x, y, block x, y, angle (not wrapped) now; `place` takes it back."""
        agent, block = self._env.agent, self._env.block
        return np.array([*agent.position, *block.position, block.angle], dtype=np.float64)

    def image(self, size: int = 96) -> NDArray[np.uint8]:
        """The board as gym-pusht draws it for image policies, (size, size, 3) RGB."""
        self._env.observation_width = self._env.observation_height = size
        pixels: NDArray[np.uint8] = self._env._render()
        return pixels


def _as_float64(raw: dict[str, Any]) -> Observation:
    return {name: np.asarray(value, dtype=np.float64) for name, value in raw.items()}


def _finite_vector(value: ArrayLike, size: int, name: str) -> Array:
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise InputError(f"{name} {value!r} is not usable: expected {size} finite numbers")
    return vector
