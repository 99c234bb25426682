"""`para-policy lerobot-server` where it does not come to serving."""

from __future__ import annotations

import sys

import pytest

from para_policy.cli.main import main


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "-1"], "--port is -1; expected 0 to 65535"),
        (["--port", "65536"], "--port is 65536; expected 0 to 65535"),
        (["--fps", "0"], "--fps is 0; expected 1 or more"),
        (["--still", "-1"], "--still is -1; expected 0 or more"),
        (["--still", "nan"], "--still is nan; expected 0 or more"),
        (["--still", "inf"], "--still is inf; expected 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lerobot-server", *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_lerobot_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lerobot", "para_policy.lerobot_server.serve"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["lerobot-server"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: lerobot-server needs LeRobot (")
    assert "pip install 'lerobot[async,diffusion]'" in error
    assert error.count("\n") == 1
