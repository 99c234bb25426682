"""PushT simulator: gym-pusht, with the start states of the original project.

Units are pixels of the 512 x 512 board and radians; y points down, as on the screen.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# pygame reads these when it is imported: draw without a display, and print no greeting.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from para_policy.extras import extra
from sim.tasks.checks import check_observable, check_seed, finite_vector
from sim.tasks.task import Array, Inputs, Observation, StepResult

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

STATE_INPUTS = {"environment_state": (16,), "agent_pos": (2,)}
"""What a policy without camera observes, and the shapes."""
_AGENT = ("agent_pos", "observation.state")
_VERTICES = ("environment_state", "observation.environment_state")
_KEYPOINTS = ("obs",)
_IMAGE = ("image", "observation.image")
_WIDTHS = {
    **dict.fromkeys(_AGENT, 2),
    **dict.fromkeys(_VERTICES, 16),
    **dict.fromkeys(_KEYPOINTS, 20),
}

# The original project's `PymunkKeypointManager` draws them with random generator 0.
KEYPOINTS = np.array(
    [
        [9.26978671, 90.04097352],
        [-60.98347236, -1.18672976],
        [60.91275558, -1.39336422],
        [-0.27050344, 25.54362499],
        [-14.06492758, 122.81585355],
        [39.00273850, 32.85740428],
        [-39.96641442, 32.72965545],
        [-16.82434438, 62.86317892],
        [23.54146122, -1.70028811],
    ]
)
"""The original project's nine keypoints in the T's own frame, pixels."""


def legacy_start_state(seed: int) -> Array:
    """Start state (agent x, agent y, block x, block y, block angle) of the original project.

    Newer versions of gym-pusht draw other states from a seed, so scores that are compared by
    seed, the published ones among them, need these draws. Their order matters.
    """
    check_seed(seed)
    random = np.random.RandomState(seed)
    agent = [random.randint(50, 450), random.randint(50, 450)]
    block = [random.randint(100, 400), random.randint(100, 400)]
    angle = random.randn() * 2 * np.pi - np.pi
    return np.array([*agent, *block, angle], dtype=np.float64)


def simulator() -> Any:
    """The environment class of gym-pusht."""
    with extra("sim", "the PushT simulator"):
        from gym_pusht.envs.pusht import PushTEnv
    return PushTEnv


def check_inputs(inputs: Inputs) -> None:
    """Raise InputError unless the board can observe every input {name: shape}."""
    check_observable(inputs, "PushT", _WIDTHS, _IMAGE)


class PushT:
    """One PushT board.

    It observes what it is asked for, by the names that checkpoints use:

    - `agent_pos`, `observation.state` (2,): the agent, float64;
    - `environment_state`, `observation.environment_state` (16,): eight vertices of the T as x, y
      pairs in gym-pusht's own order, float64;
    - `obs` (20,): the original project's nine keypoints and the agent, float64;
    - `image`, `observation.image` (3, height, width): what gym-pusht draws for image policies,
      without a mark at the last action, uint8. Drawing takes a few milliseconds.

    Raises:
        InputError: for an input that is none of these.
        MissingPackageError: if gym-pusht is not installed.
    """

    def __init__(self, inputs: Inputs = STATE_INPUTS) -> None:
        check_inputs(inputs)
        self._inputs = inputs
        self._env = simulator()(obs_type="environment_state_agent_pos")
        self._env.reset(options={"reset_to_state": legacy_start_state(0)})

    def begin(self, seed: int) -> Observation:
        """Start an episode from the legacy start state of `seed`."""
        return self.reset(legacy_start_state(seed))

    def reset(self, state: ArrayLike) -> Observation:
        """Start an episode from `state` (5,), as the original project does.

        The block's position is set before its angle, and turning it about its centre of mass
        then moves it: the state in effect is not the one that was asked for. The recorded
        demonstrations and all published scores come from this order.
        """
        start = finite_vector(state, 5, "start state")
        self._env.reset(options={"reset_to_state": start})
        return self.observation()

    def place(self, state: ArrayLike) -> Observation:
        """Put agent and block exactly at `state` (5,), to show or compare a recorded state."""
        target = finite_vector(state, 5, "state")
        self._env.agent.position = tuple(target[:2])
        self._env.block.angle = float(target[4])
        self._env.block.position = tuple(target[2:4])
        for body in (self._env.agent, self._env.block):  # shapes follow only at the next step
            self._env.space.reindex_shapes_for_body(body)
        return self.observation()

    def step(self, action: ArrayLike) -> StepResult:
        """Move the agent towards `action` (x, y) for CONTROL_DT seconds; the score is the coverage."""
        # With a float32 action gym-pusht would run its controller in float32.
        target = finite_vector(action, 2, "action")
        info = self._env.step(target)[-1]
        return StepResult(self.observation(), float(info["coverage"]))

    def observation(self) -> Observation:
        """All inputs now."""
        return {name: self._observe(name, shape) for name, shape in self._inputs.items()}

    def _observe(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if name in _IMAGE:
            return np.moveaxis(self.image(*shape[1:]), -1, 0)
        if name in _KEYPOINTS:
            return np.concatenate([self._keypoints(), np.asarray(self._env.agent.position)])
        kind = "agent_pos" if name in _AGENT else "environment_state"
        return np.asarray(self._env.get_obs()[kind], dtype=np.float64)

    def _keypoints(self) -> Array:
        block = self._env.block
        c, s = np.cos(block.angle), np.sin(block.angle)
        points = KEYPOINTS @ np.array([[c, s], [-s, c]]) + np.asarray(block.position)
        return np.asarray(points.ravel())

    def state(self) -> Array:
        """Agent x, y, block x, y, angle (not wrapped) now; `place` takes it back."""
        agent, block = self._env.agent, self._env.block
        return np.array([*agent.position, *block.position, block.angle], dtype=np.float64)

    def image(self, height: int = 96, width: int | None = None) -> NDArray[np.uint8]:
        """The board as gym-pusht draws it for image policies, (height, width, 3) RGB."""
        with extra("sim", "the PushT simulator"):
            from gym_pusht.envs import pusht  # with its own OpenCV and pygame

        # As `_render` of gym-pusht, which first copies the whole board in another order: half its time.
        rows = pusht.pygame.surfarray.pixels2d(self._env._draw()).T
        drawn = rows.view(np.uint8).reshape(*rows.shape, 4)  # blue, green, red, nothing
        scaled = pusht.cv2.resize(drawn, (height if width is None else width, height))
        return np.ascontiguousarray(scaled[..., 2::-1])
