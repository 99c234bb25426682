"""Command line `para-policy`: train, measure, convert and export policies; check, record, replay robots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from para_policy.cli.checkpoints import Convert, Info, InitRos
from para_policy.cli.doctor import Doctor
from para_policy.cli.export import Export
from para_policy.cli.learning import Distill, MakeTrajectories, Train
from para_policy.cli.measuring import Bench, Calibrate
from para_policy.cli.recording import Record, Replay
from para_policy.terminal import run


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
