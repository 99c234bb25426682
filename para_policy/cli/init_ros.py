"""`para-policy init-ros`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from para_policy.terminal import show


@dataclass(frozen=True)
class InitRos:
    """Write a commented parameter file and observation mapping for the ROS node."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Checkpoint directory."""
    output: Path = Path("ros_config")
    """Folder that receives policy.yaml and inputs.yaml."""
    force: bool = False
    """Replace files that are there."""

    def __call__(self) -> None:
        from para_policy.checkpoints.load import read_checkpoint
        from para_policy.ros.parameters.templates import write_ros_files

        config = read_checkpoint(self.checkpoint).config
        for path in write_ros_files(self.checkpoint, self.output, config, force=self.force):
            show(path)
