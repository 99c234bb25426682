"""The check on a GPU machine: what it says where something is missing."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"


def check(*options: str, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    return subprocess.run(
        ["bash", str(SCRIPT), *options], capture_output=True, text=True, env=environment
    )


def needed() -> list[str]:
    found = re.search(r'^NEEDED="(.*)"$', SCRIPT.read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_it_asks_for_what_the_package_and_the_tests_need(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: said.update(kwargs))
    runpy.run_path(str(ROOT / "setup.py"))
    required = {re.split("[<>=]", name)[0] for name in said["install_requires"]}
    assert set(needed()) == {*required, "hypothesis", "pytest"}


def test_all_that_is_missing_is_named_before_anything_else(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = tmp_path / "bare" / "bin" / "python"
    ended = check("--out", str(tmp_path / "out"), python=python)
    assert ended.returncode == 2
    assert f"not installed for {python}: {' '.join(needed())}" in ended.stderr
    release = "{}.{}".format(*sys.version_info)
    assert f"pip download --dest wheels --only-binary :all: --python-version {release}" in (
        ended.stderr
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget-s", "soon"), "--budget-s is 'soon'; expected whole seconds"),
        (("--fast", "1"), "unknown option '--fast'"),
        (("--device",), "--device needs a value"),
        (("--device", "cuda:99"), "device cuda:99 cannot be used by this torch"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    ended = check("--out", str(tmp_path), *options)
    assert ended.returncode == 2
    assert words in ended.stderr
