"""Inverse kinematics of one Aloha arm: damped least squares on MuJoCo's Jacobian."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from para_policy.extras import extra
from sim.tasks.task import Array

with extra("aloha", "the Aloha simulator"):
    import mujoco

ITERATIONS = 20
"""At most; a target that moves a few millimetres between two calls takes two or three."""
TOLERANCE = 1e-4
"""Metres and radians."""
DAMPING = 0.05
"""Where two axes of the wrist line up, the plain solution turns them fast against each other."""
MAX_TURN = 0.1
"""Of a joint from one target to the next, radians: 5 rad/s at 50 Hz."""


class Arm:
    """An arm that follows targets of its gripper, in a simulation of its own.

    Args:
        model: the `MjModel` of the scene.
        side: "left" or "right".
        positions: of the whole scene to begin with, MuJoCo's `qpos`.

    Attributes:
        joints: the six joint positions of the last solution, radians.
        error: largest coordinate of its error, metres or radians.
    """

    def __init__(self, model: Any, side: str, positions: Array) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._data.qpos[:] = positions
        self._body = model.body(f"vx300s_{side}/gripper_link").id
        first = model.joint(f"vx300s_{side}/waist").id
        self._joints = slice(first, first + 6)  # so far one position and one velocity a joint
        self._low, self._high = model.jnt_range[self._joints].T
        self.joints: Array = np.array(positions[self._joints])
        self.error = 0.0

    def pose(self) -> tuple[Array, Rotation]:
        """Position, metres, and orientation of the gripper for `joints`."""
        self._data.qpos[self._joints] = self.joints
        mujoco.mj_kinematics(self._model, self._data)
        turned = Rotation.from_matrix(self._data.xmat[self._body].reshape(3, 3))
        return self._data.xpos[self._body].copy(), turned

    def follow(self, position: Array, orientation: Rotation) -> Array:
        """The `joints` that bring the gripper there, from the last ones and within MAX_TURN of them."""
        jacobian = np.zeros((6, self._model.nv))
        low = np.maximum(self._low, self.joints - MAX_TURN)
        high = np.minimum(self._high, self.joints + MAX_TURN)
        for _ in range(ITERATIONS):
            at, turned = self.pose()
            missing = np.concatenate([position - at, (orientation * turned.inv()).as_rotvec()])
            self.error = float(np.abs(missing).max())
            if self.error < TOLERANCE:
                break
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacBody(self._model, self._data, jacobian[:3], jacobian[3:], self._body)
            own = jacobian[:, self._joints]
            damped = own @ own.T + DAMPING**2 * np.eye(6)
            step = own.T @ np.linalg.solve(damped, missing)
            self.joints = np.clip(self.joints + step, low, high)
        return self.joints
