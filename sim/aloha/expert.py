"""Scripted expert of AlohaTransferCube: waypoints of both grippers, followed by inverse kinematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from sim.aloha.env import Aloha
from sim.aloha.kinematics import Arm
from sim.tasks.task import Array

Pose = tuple[Array, Rotation]

REACH = 0.135
"""From the gripper's frame to the middle of a grasped cube, metres: the tips end at 0.153."""
GIVEN_REACH = 0.115
"""The same where the cube changes hands, so that the fingers overlap."""
CUBE_HEIGHT = 0.02
"""Of its middle on the table, metres."""
MISSED_BELOW = 0.035
"""A cube below this height after the lift, metres, was not grasped."""
MEETING = np.array([0.0, 0.5, 0.25])
"""Where the cube changes hands: in the middle, a quarter of a metre above the table."""
TOWARDS_LEFT = Rotation.from_euler("z", 180, degrees=True)
DOWN = TOWARDS_LEFT * Rotation.from_euler("y", 60, degrees=True)
"""How the right gripper takes the cube from the table."""
SIDEWAYS = Rotation.from_euler("x", 90, degrees=True)
"""How the left gripper takes it: its fingers above and below, where the right one's are not."""


@dataclass(frozen=True)
class Leg:
    """A movement to a goal.

    Attributes:
        steps: how long it takes, in actions.
        right, left: where the grippers go, given where the cube is (3,).
        grips: opening of the left and the right gripper at the end, 0 to 1.
    """

    steps: int
    right: Callable[[Array], Pose]
    left: Callable[[Array], Pose]
    grips: tuple[float, float]


def _grasp(height: float) -> Callable[[Array], Pose]:
    """The right gripper around the cube on the table, or so high above it, metres."""

    def pose(cube: Array) -> Pose:
        middle = np.array([cube[0], cube[1], CUBE_HEIGHT + height])
        return middle - REACH * DOWN.apply([1.0, 0.0, 0.0]), DOWN

    return pose


def _give(back: float) -> Callable[[Array], Pose]:
    """The right gripper with the cube at the meeting, or so far back, metres."""
    at = MEETING - GIVEN_REACH * TOWARDS_LEFT.apply([1.0, 0.0, 0.0]) + [back, 0.0, 0.0]
    return lambda _: (at, TOWARDS_LEFT)


def _take(back: float) -> Callable[[Array], Pose]:
    """The left gripper around the cube at the meeting, or so far back, metres."""
    at = MEETING - [GIVEN_REACH + back, 0.0, 0.0]
    return lambda _: (at, SIDEWAYS)


LEGS = (
    Leg(50, _grasp(0.08), _take(0.1), (1, 1)),
    Leg(25, _grasp(0.0), _take(0.1), (1, 1)),
    Leg(15, _grasp(0.0), _take(0.1), (1, 0)),
    Leg(20, _grasp(0.06), _take(0.1), (1, 0)),
    Leg(45, _give(0.0), _take(0.1), (1, 0)),
    Leg(20, _give(0.0), _take(0.0), (1, 0)),
    Leg(15, _give(0.0), _take(0.0), (0, 0)),
    Leg(15, _give(0.0), _take(0.0), (0, 1)),
    Leg(25, _give(0.08), _take(0.05), (0, 1)),
)
CLOSES, LIFTS = 2, 3
"""The legs in which the right gripper closes, and lifts the cube."""


class Expert:
    """Plays one episode: `action` is called before each action, with the scene as it is.

    It goes to where the cube is, until its gripper closes, and takes it again if it missed it; where
    the arms are it never asks. It is deterministic.

    Attributes:
        done: all legs are played; from then on it holds still.
    """

    def __init__(self, scene: Aloha) -> None:
        positions = scene.state()
        model = scene.physics.model.ptr
        self._arms = (Arm(model, "left", positions), Arm(model, "right", positions))
        joints = scene.joints()
        self._grips = np.array([joints[6], joints[13]])
        self._cube = scene.cube()[:3]
        self._begin(0, scene)

    def _begin(self, number: int, scene: Aloha) -> None:
        """Start a leg from where the arms should be by now."""
        self._number, self._step = number, 0
        self._from = [arm.pose() for arm in self._arms]
        self._from_grips = self._grips
        if number <= CLOSES:
            self._cube = scene.cube()[:3]

    def action(self, scene: Aloha) -> Array:
        """The next action (14,)."""
        if self._step == LEGS[self._number].steps and not self.done:
            missed = self._number == LIFTS and scene.cube()[2] < MISSED_BELOW
            self._begin(0 if missed else self._number + 1, scene)
        leg = LEGS[self._number]
        if self._number < CLOSES:  # it may have been pushed away
            self._cube = scene.cube()[:3]
        self._step = min(self._step + 1, leg.steps)
        part = self._step / leg.steps
        part = part * part * (3 - 2 * part)  # at rest in the beginning and in the end
        self._grips = (1 - part) * self._from_grips + part * np.array(leg.grips)
        targets = []
        for arm, (at, turned), goal, grip in zip(
            self._arms, self._from, (leg.left, leg.right), self._grips, strict=True
        ):
            to, orientation = goal(self._cube)
            way = Slerp([0.0, 1.0], Rotation.concatenate([turned, orientation]))
            targets += [*arm.follow((1 - part) * at + part * to, way(part)), grip]
        return np.array(targets)

    @property
    def done(self) -> bool:
        return self._number == len(LEGS) - 1 and self._step == LEGS[-1].steps
