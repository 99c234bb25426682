"""AlohaTransferCube simulator: the task of gym-aloha, observed without a camera.

Two arms of six joints with a gripper each stand on either side of a table. The right one picks up a
cube and hands it to the left one. Units are metres and radians; a gripper is closed at 0 and open at
1, but ends at 0.100 where its fingers touch, and at 0.975.

The start pose lies outside of gym-aloha's `action_space`, whose bounds of ±1 no joint has: nothing
here clips an action to it. Joints overshoot a step by half of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from para_policy.errors import InputError
from para_policy.extras import extra
from sim.tasks.checks import check_observable, check_seed, finite_vector
from sim.tasks.task import Array, Inputs, Observation, StepResult

CONTROL_DT = 0.02
"""Time between two actions, seconds; the physics runs ten times as fast."""
MAX_STEPS = 300
"""Length of an episode that does not succeed, in actions."""
FULL_REWARD = 4
"""The left gripper holds the cube in the air: success. 3: it touches the cube; 2: the right gripper
holds it in the air; 1: that touches it. Only the outer finger of each gripper counts."""
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
ACTION_NAMES = tuple(
    f"{s}_{joint}" for s in ("left", "right") for joint in (*ARM_JOINTS, "gripper")
)
"""Targets of all joints and, from 0 to 1, of the grippers; observed positions have the same order."""

STATE_INPUTS = {"agent_pos": (14,), "environment_state": (7,)}
"""What a policy without camera observes, and the shapes."""
_JOINTS = ("agent_pos", "observation.state")
_CUBE = ("environment_state", "observation.environment_state")
_IMAGE = ("image", "observation.image", "observation.images.top")
_WIDTHS = {**dict.fromkeys(_JOINTS, 14), **dict.fromkeys(_CUBE, 7)}
_ROBOT = 16
"""Positions of the simulator that belong to the arms: six joints and two fingers each."""


def start_cube(seed: int) -> Array:
    """Where gym-aloha puts the cube: position, metres, and quaternion (w, x, y, z)."""
    check_seed(seed)
    with extra("aloha", "the Aloha simulator"):
        from gym_aloha.utils import sample_box_pose
    return np.asarray(sample_box_pose(seed), dtype=np.float64)


def check_inputs(inputs: Inputs) -> None:
    """Raise InputError unless the simulator can observe every input {name: shape}."""
    check_observable(inputs, "AlohaTransferCube", _WIDTHS, _IMAGE)


@contextmanager
def _graphics() -> Iterator[None]:
    """Say in one line that nothing here can draw: MuJoCo's bindings raise what their parts do."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        chosen = os.environ.get("MUJOCO_GL")
        raise InputError(
            f"MuJoCo cannot draw here ({error}), with MUJOCO_GL {f'= {chosen}' if chosen else 'not set'}; "
            "install EGL (libegl1) or OSMesa (libosmesa6), and set MUJOCO_GL=egl or osmesa, or unset it"
        ) from error


def simulator() -> Any:
    """A new `control.Environment` of dm_control with gym-aloha's task, which draws no camera."""
    if not os.environ.get("DISPLAY"):  # dm_control would choose GLFW, which then cannot draw
        for library in ("EGL", "OSMesa"):
            if find_library(library):
                os.environ.setdefault("MUJOCO_GL", library.lower())
    with extra("aloha", "the Aloha simulator"), _graphics():
        from dm_control import mujoco
        from dm_control.rl import control
        from gym_aloha.constants import ASSETS_DIR
        from gym_aloha.tasks.sim import TransferCubeTask

    class StateTask(TransferCubeTask):
        """gym-aloha's own has no observation without three images of 480 x 640 pixels."""

        def get_observation(self, physics: Any) -> dict[str, Any]:
            return {}

    physics = mujoco.Physics.from_xml_path(str(ASSETS_DIR / "bimanual_viperx_transfer_cube.xml"))
    return control.Environment(physics, StateTask(), float("inf"), control_timestep=CONTROL_DT)


class Aloha:
    """One pair of arms with a cube.

    It observes what it is asked for, by the names that checkpoints use:

    - `agent_pos`, `observation.state` (14,): positions in the order of ACTION_NAMES, float64;
    - `environment_state`, `observation.environment_state` (7,): the cube's position and quaternion
      (w, x, y, z), float64;
    - `image`, `observation.image`, `observation.images.top` (3, height, width): the camera above the
      table, uint8. Without a GPU, drawing takes longer than an action.

    Raises:
        InputError: for an input that is none of these, or where MUJOCO_GL asks for what cannot be loaded.
        MissingPackageError: if gym-aloha is not installed.
    """

    def __init__(self, inputs: Inputs = STATE_INPUTS) -> None:
        check_inputs(inputs)
        self._inputs = inputs
        self._env = simulator()
        with extra("aloha", "the Aloha simulator"):
            from dm_control.rl.control import PhysicsError
        self._unstable = PhysicsError
        self.physics: Any = self._env.physics
        """dm_control's."""
        self.begin(0)

    def begin(self, seed: int) -> Observation:
        """Start an episode with gym-aloha's start state of `seed`."""
        with extra("aloha", "the Aloha simulator"):
            from gym_aloha.tasks.sim import BOX_POSE
        BOX_POSE[0] = start_cube(seed)  # all simulators of the process read it, at a reset only
        self._env.reset()
        return self.observation()

    def step(self, action: ArrayLike) -> StepResult:
        """Move the arms towards `action` (14,) for CONTROL_DT seconds; the score is the reward.

        Arms that are flung to and fro, as a policy that knows nothing may do it, get faster than the
        physics can follow. Such a step is not taken: everything stays as it was, with a score of 0.
        """
        target = finite_vector(action, 14, "action")
        before = self.snapshot()
        try:
            reward = self._env.step(target).reward
        except self._unstable:
            return StepResult(self.restore(before), 0.0)
        return StepResult(self.observation(), float(reward))

    def state(self) -> Array:
        """Positions of all joints and of the cube (23,), as MuJoCo has them."""
        return np.array(self.physics.data.qpos, dtype=np.float64)

    def place(self, state: ArrayLike) -> Observation:
        """Show a recorded state (23,), at rest."""
        positions = finite_vector(state, 23, "state")
        with self.physics.reset_context():
            self.physics.data.qpos[:] = positions
        return self.observation()

    def snapshot(self) -> Array:
        """All that the course from here on depends on, for `restore`.

        With the solver's warm start: without it a restored state goes on a little differently.
        """
        mujoco, model, data = self._mujoco()
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, state, kind)
        return state

    def restore(self, snapshot: Array) -> Observation:
        """Go back to where `snapshot` was taken; the same actions then lead to the same states."""
        mujoco, model, data = self._mujoco()
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(model, data, snapshot, kind)
        mujoco.mj_forward(model, data)  # what follows from the state, but it moves the warm start
        mujoco.mj_setState(model, data, snapshot, kind)
        return self.observation()

    def observation(self) -> Observation:
        """All inputs now."""
        return {name: self._observe(name, shape) for name, shape in self._inputs.items()}

    def _observe(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if name in _IMAGE:
            return np.moveaxis(self.image(*shape[1:]), -1, 0)
        return self.joints() if name in _JOINTS else self.cube()

    def joints(self) -> Array:
        """Positions now (14,) in the order of ACTION_NAMES."""
        return np.asarray(self._env.task.get_qpos(self.physics), dtype=np.float64)

    def cube(self) -> Array:
        """Position and quaternion (w, x, y, z) of the cube now (7,)."""
        return self.state()[_ROBOT:]

    def image(self, height: int, width: int | None = None) -> NDArray[np.uint8]:
        """What the camera above the table sees, (height, width, 3) RGB; a square if no width."""
        return self.draw("top", height, height if width is None else width)

    def draw(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """What a camera of the scene sees, (height, width, 3) RGB, without a display.

        Raises:
            InputError: where nothing here can draw.
        """
        with _graphics():
            pixels: NDArray[np.uint8] = self.physics.render(height, width, camera_id=camera)
        return pixels

    def _mujoco(self) -> tuple[Any, Any, Any]:
        """The module, its model and its data."""
        with extra("aloha", "the Aloha simulator"):
            import mujoco
        return mujoco, self.physics.model.ptr, self.physics.data.ptr
