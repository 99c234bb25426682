"""Commands in README.md, the documentation and beside checkpoints: the programs take their options."""

from __future__ import annotations

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from para_policy.cli.doctor import Doctor
from para_policy.cli.inputs import OfCheckpoint
from para_policy.cli.main import COMMANDS
from para_policy.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "checkpoints").glob("*/README.md")),
]
FENCED = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
STARTS = re.compile(r"^\s*(python -m (sim|benchmarks)\b|para-policy\s)")
ENDS = {"|", "&&", ";", ">"}
NEEDS = {r"(sim|benchmarks)\.ros\b": "rclpy", r"sim\.aloha\b": "gym_aloha"}
WITHOUT_OPTIONS = {"benchmarks.engine.results", "benchmarks.ros.results"}
"""They take two places, and would write there."""


def commands_of(text: str) -> list[list[str]]:
    """Words of all commands of a page, without those that are only named within a sentence."""
    unfenced = FENCED.sub("", text)
    rest = INDENTED.sub("", unfenced)
    code = "".join([*FENCED.findall(text), *INDENTED.findall(unfenced)])
    alone = {line.strip("`") for line in rest.splitlines()}
    found = [words(line) for line in code.replace("\\\n", " ").splitlines()]
    for line in INLINE.findall(rest):
        command = words(line)
        if len(command) > 1 or line in alone:
            found.append(command)
    return [command for command in found if command]


def words(line: str) -> list[str]:
    """Module, or command of para-policy, and what follows, 1 for each placeholder; [] for others."""
    if not STARTS.search(line):
        return []
    found = shlex.split(re.sub(r"[][]", "", line).replace("\\|", "|"))
    end = next((i for i, word in enumerate(found) if word in ENDS or word[0] == "#"), len(found))
    found = ["1" if PLACEHOLDER.fullmatch(word) else word for word in found[:end]]
    if found[0] == "python":
        return [] if found[2] in WITHOUT_OPTIONS else found[2:]
    return [] if found[1:2] == ["1"] else found[1:]


class Parsed(BaseException):
    """Comes instead of the run."""

    def __init__(self, options: object) -> None:
        super().__init__()
        self.options = options


def is_installed(program: str) -> bool:
    """Whether what it imports is there, of which some is not for every Python."""
    return all(
        re.match(begin, program) is None or importlib.util.find_spec(package) is not None
        for begin, package in NEEDS.items()
    )


def refused(command: list[str], patch: pytest.MonkeyPatch) -> bool:
    """Whether the program does not take its options, or lacks the checkpoint that it needs."""
    of_package = command[0] in COMMANDS or command[0].startswith("-")
    module, options = ("para_policy", command) if of_package else (command[0], command[1:])
    parse = tyro.cli

    def parsed(*arguments: Any, **settings: Any) -> None:
        raise Parsed(parse(*arguments, **settings))

    with patch.context() as within:
        within.setattr(tyro, "cli", parsed)
        within.setattr(sys, "argv", [module, *options])
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code not in (0, None)
        except Parsed as found:
            taken = getattr(found.options, "command", found.options)
    try:
        if isinstance(taken, OfCheckpoint) and not isinstance(taken, Doctor):
            taken.named()
    except InputError:
        return True
    return False


@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_take_the_commands_of_a_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [
        " ".join(command)
        for command in commands_of(page.read_text(encoding="utf-8"))
        if is_installed(command[0]) and refused(command, monkeypatch)
    ]
    assert wrong == []


def test_a_command_that_is_refused_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    page = """
Run `para-policy bench` or `para-policy bench DIR [--task WORDS]`, and not `para-policy calibrate --cases
2`; nor

    python -m sim.aloha.demonstrations \\
        --episodes 3  # a minute
    para-policy info DIR --no-such-option | head -1

`python -m benchmarks.engine`
"""
    wrong = [command for command in commands_of(page) if refused(command, monkeypatch)]
    assert wrong == [
        ["sim.aloha.demonstrations", "--episodes", "3"],
        ["info", "1", "--no-such-option"],
        ["calibrate", "--cases", "2"],
        ["benchmarks.engine"],
    ]
