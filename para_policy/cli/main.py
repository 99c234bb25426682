"""Command line `para-policy`: train, measure, convert and export policies; check, record, replay robots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from para_policy import __version__
from para_policy.cli.bench import Bench
from para_policy.cli.calibrate import Calibrate
from para_policy.cli.convert import Convert
from para_policy.cli.distill import Distill
from para_policy.cli.doctor import Doctor
from para_policy.cli.export import Export
from para_policy.cli.info import Info
from para_policy.cli.init_ros import InitRos
from para_policy.cli.record import Record
from para_policy.cli.replay import Replay
from para_policy.cli.train import Train
from para_policy.cli.trajectories import MakeTrajectories
from para_policy.terminal import run


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `para-policy`; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        print(f"para-policy {__version__}")
        return 0
    command = tyro.cli(
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
        | Annotated[MakeTrajectories, tyro.conf.subcommand("trajectories")]
        | Annotated[Distill, tyro.conf.subcommand("distill")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[InitRos, tyro.conf.subcommand("init-ros")]
        | Annotated[Doctor, tyro.conf.subcommand("doctor")]
        | Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Replay, tyro.conf.subcommand("replay")],
        prog="para-policy",
        description="Real-time diffusion policies by parallel sampling; --version prints the version.",
        args=arguments,
    )
    return run(command)
