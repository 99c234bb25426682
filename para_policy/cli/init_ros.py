"""`para-policy init-ros`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from para_policy.cli.inputs import OfCheckpoint
from para_policy.terminal import show


@dataclass(frozen=True, kw_only=True)
class InitRos(OfCheckpoint):
    """Write a commented parameter file and observation mapping for the ROS node."""

    output: Path = Path("ros_config")
    """Folder that receives policy.yaml and inputs.yaml."""
    force: bool = False
    """Replace files that are there."""

    def __call__(self) -> None:
        from para_policy.checkpoints.load import read_checkpoint
        from para_policy.ros.parameters.templates import write_ros_files

        directory = self.directory()
        config = read_checkpoint(directory).config
        for path in write_ros_files(directory, self.output, config, force=self.force):
            show(path)
