"""What a terminal shows while a command works: each stage, and nothing of it afterwards."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

import pytest

from para_policy.terminal import Manner, end_stage, set_manner, stage

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
