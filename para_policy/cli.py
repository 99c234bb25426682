"""`para-policy`: train, measure, convert and export policies; check, record and replay robots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from para_policy.command_line import run
from para_policy.commands.checkpoints import Convert, Info, InitRos
from para_policy.commands.doctor import Doctor
from para_policy.commands.export import Export
from para_policy.commands.learning import Distill, MakeTrajectories, Train
from para_policy.commands.measuring import Bench, Calibrate
from para_policy.commands.recording import Record, Replay


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `para-policy`; returns the exit code."""
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
        description="Real-time diffusion policies by parallel sampling.",
        args=argv,
    )
    return run(command)


if __name__ == "__main__":
    sys.exit(main())
