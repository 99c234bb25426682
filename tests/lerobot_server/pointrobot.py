"""A robot without hardware that LeRobot's client accepts: a point that goes where it is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig

CAMERA = "top"
SIZE = (64, 64, 3)


@RobotConfig.register_subclass("point_robot")
@dataclass
class PointRobotConfig(RobotConfig):
    """LeRobot finds the robot by this name and that of the module."""


class PointRobot(Robot):
    """Its state is where it is, (2,).

    Attributes:
        path: the actions that it was sent, each (2,).
    """

    config_class = PointRobotConfig
    name = "point_robot"

    def __init__(self, config: PointRobotConfig) -> None:
        super().__init__(config)
        self.path: list[np.ndarray] = []
        self._connected = False

    @property
    def observation_features(self) -> dict[str, Any]:
        return {"x": float, "y": float, CAMERA: SIZE}

    @property
    def action_features(self) -> dict[str, Any]:
        return {"x": float, "y": float}

    @property
    def is_connected(self) -> bool:
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._connected = True

    def disconnect(self) -> None:
        self._connected = False

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        x, y = self.path[-1] if self.path else (0.0, 0.0)
        return {"x": float(x), "y": float(y), CAMERA: np.zeros(SIZE, np.uint8)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.path.append(np.array([action["x"], action["y"]]))
        return action


def config(folder: Path) -> PointRobotConfig:
    """LeRobot puts calibrations into the home directory otherwise."""
    return PointRobotConfig(id="point", calibration_dir=folder)
