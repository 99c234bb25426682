"""What a terminal shows while a command works: each stage, and nothing of it afterwards."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import pytest
import torch

from para_policy.terminal import Manner, end_stage, run, set_manner, stage

ESCAPE = re.compile("\x1b.*?[a-zA-Z]")
ERASED = "\x1b[2K"
CURSOR = "\x1b[?25h"


def shown(monkeypatch: pytest.MonkeyPatch) -> str:
    """Two stages on a terminal, and their end."""
    far, near = os.openpty()
    with os.fdopen(near, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        set_manner(Manner())
        stage("loading")
        stage("timing")
        end_stage()
    parts = []
    with suppress(OSError), os.fdopen(far, "rb", buffering=0) as file:  # EIO is its end
        while part := file.read(1000):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("colour", [True, False])
def test_a_stage_is_drawn_and_taken_away(colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    text = shown(monkeypatch)
    first, _, second = text.partition("timing")
    assert "loading" in first
    for part in (first, second):
        assert ERASED in part
        assert CURSOR in part
    assert colour or not [code for code in ESCAPE.findall(text) if code.endswith("m")]


def test_a_terminal_that_cannot_go_back_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert shown(monkeypatch).splitlines() == ["loading", "timing"]


def test_memory_that_torch_does_not_get_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def too_much() -> None:
        torch.empty(2**50)

    assert run(too_much) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: not enough memory (")
    assert error.count("\n") == 1


def test_other_errors_of_torch_are_faults() -> None:
    def wrong() -> None:
        torch.ones(2) + torch.ones(3)

    with pytest.raises(RuntimeError, match="must match"):
        run(wrong)
