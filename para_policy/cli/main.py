"""Command line `para-policy`: train, measure, convert and export policies; check, record, replay robots."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from para_policy import __version__
from para_policy.cli.annotations import prepared
from para_policy.errors import InputError
from para_policy.terminal import Manner, run, set_manner, show, stage

COMMANDS = {
    "train": "para_policy.cli.train:Train",
    "bench": "para_policy.cli.bench:Bench",
    "calibrate": "para_policy.cli.calibrate:Calibrate",
    "trajectories": "para_policy.cli.trajectories:MakeTrajectories",
    "distill": "para_policy.cli.distill:Distill",
    "info": "para_policy.cli.info:Info",
    "convert": "para_policy.cli.convert:Convert",
    "export": "para_policy.cli.export:Export",
    "init-ros": "para_policy.cli.init_ros:InitRos",
    "doctor": "para_policy.cli.doctor:Doctor",
    "record": "para_policy.cli.record:Record",
    "replay": "para_policy.cli.replay:Replay",
    "lerobot-server": "para_policy.cli.lerobot_server:LeRobotServer",
    # The simulator stands on the package; the package knows this name of it and no more.
    "evaluate": "sim.evaluate:Evaluate",
}
"""Name of each command and where its class is, so that only the one that is called is imported."""

_PROGRAM = "para-policy"
_COMPLETION = "--tyro-"  # print-completion SHELL, write-completion SHELL PATH

Command = Callable[[], None]
"""A dataclass: its fields are the options, a call does the work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `para-policy`; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    set_manner(Manner())
    return run(lambda: _main(arguments))


def _main(arguments: Sequence[str]) -> None:
    # --quiet, -v and --help may stand before the command, too.
    name = next((word for word in arguments if not word.startswith("-")), None)
    before = arguments if name is None else arguments[: arguments.index(name)]
    if any(word.startswith(_COMPLETION) for word in before):
        _complete(arguments)
    elif "--version" in before:
        show(f"{_PROGRAM} {__version__}")
    elif name is not None:
        _call(name, [*before, *arguments[len(before) + 1 :]])
    elif {"-h", "--help"} & {*before}:
        show(_overview())
    else:
        raise InputError(f"no command given; {_PROGRAM} --help lists the commands")


def _call(name: str, options: Sequence[str]) -> None:
    about = inspect.getdoc(find_command(name))
    call = tyro.cli(_parsed(name), prog=f"{_PROGRAM} {name}", description=about, args=options)
    set_manner(call.manner)
    stage(f"{name}: loading")
    call.command()


def _parsed(name: str) -> Any:
    """Dataclass of a command and of what every command takes: its `manner`."""
    kind = find_command(name)
    for fields in (kind, Manner):
        fields.__annotations__ = prepared(fields)
    own_options = tyro.conf.arg(name="", help="")  # without a prefix, and no text to search for
    manner = Annotated[Manner, own_options, tyro.conf.FlagCreatePairsOff]
    return make_dataclass(
        "Call",
        [
            ("command", Annotated[kind, own_options]),
            ("manner", manner, field(default_factory=Manner)),
        ],
    )


def find_command(name: str) -> type[Command]:
    """Class of a command; raises InputError for a name that is none."""
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown command {name!r}; {hint}{_PROGRAM} --help lists the commands")
    module, _, kind = COMMANDS[name].partition(":")
    found: type[Command] = getattr(importlib.import_module(module), kind)
    return found


def _overview() -> str:
    about = {name: inspect.getdoc(find_command(name)) or "" for name in COMMANDS}
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {text.splitlines()[0]}" for name, text in about.items())
    return "\n".join(
        (
            f"usage: {_PROGRAM} COMMAND [OPTIONS]",
            "\nReal-time diffusion policies by parallel sampling.\n",
            *lines,
            f"\n{_PROGRAM} COMMAND --help lists the options of a command; --version prints the version.",
            f"{_PROGRAM} {_COMPLETION}print-completion bash (or zsh, tcsh) prints a completion script.",
        )
    )


def _complete(arguments: Sequence[str]) -> None:
    commands = {name: _parsed(name) for name in COMMANDS}
    tyro.extras.subcommand_cli_from_dict(commands, prog=_PROGRAM, args=arguments)
