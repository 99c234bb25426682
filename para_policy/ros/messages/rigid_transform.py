"""Fixed rigid transform of poses, as the observation mapping gives it."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator, model_validator
from scipy.spatial.transform import Rotation

from para_policy.errors import InputError

Array = NDArray[np.float64]
Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Quaternion = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
_NORM_TOLERANCE = 1e-3


class RigidTransform(BaseModel):
    """Place of the frame of the messages in the frame that the policy was trained in.

    A position p becomes R p + t and an orientation q becomes r q, which is what tf2 calls the
    transform from the messages' frame to the trained one.

    Attributes:
        translation: t: x, y, z in units of the messages, metres as a rule.
        rotation: r: quaternion x, y, z, w of length 1 within 1e-3, normalised here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    translation: Vector = (0.0, 0.0, 0.0)
    rotation: Quaternion = (0.0, 0.0, 0.0, 1.0)

    @field_validator("rotation")
    @classmethod
    def _unit(cls, quaternion: Quaternion) -> Quaternion:
        length = math.hypot(*quaternion)
        if abs(length - 1.0) > _NORM_TOLERANCE:
            raise ValueError(f"expected a quaternion x y z w of length 1, it has {length:.6g}")
        x, y, z, w = (number / length for number in quaternion)
        return (x, y, z, w)

    @model_validator(mode="after")
    def _given(self) -> RigidTransform:
        if not self.model_fields_set:
            raise ValueError("is empty; expected translation, rotation or both")
        return self

    @cached_property
    def _rotation(self) -> Rotation:
        return Rotation.from_quat(self.rotation)

    def positions(self, positions: Array) -> Array:
        """Positions (n, 3) in the trained frame."""
        moved: Array = positions @ self._rotation.as_matrix().T + self.translation
        return moved

    def poses(self, poses: Array) -> Array:
        """Poses (n, 7) in the trained frame: x, y, z and the quaternion x, y, z, w.

        Quaternions keep their side: of the two that mean one rotation, the product of r and q.

        Raises:
            InputError: when the length of a quaternion is not 1 within 1e-3.
        """
        lengths = np.linalg.norm(poses[:, 3:], axis=1)
        wrong = ~(np.abs(lengths - 1.0) <= _NORM_TOLERANCE)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"pose {row} has the orientation {poses[row, 3:].tolist()} of length "
                f"{lengths[row]:.6g}, expected a quaternion of length 1; use axes: xyz where "
                "the sensor has no orientation"
            )
        if not len(poses):  # older versions of scipy know no empty rotations
            return poses
        turned = (self._rotation * Rotation.from_quat(poses[:, 3:])).as_quat()
        return np.hstack([self.positions(poses[:, :3]), turned])
