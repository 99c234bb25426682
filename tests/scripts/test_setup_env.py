"""Which PyTorch the environment gets; interpreters are stand-ins that note what they are asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("constraints.txt", "requirements-ros.txt", "setup.py", "scripts/setup_env.sh")
TORCH = next(
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:7] == "torch=="
)
STAND_IN = """#!/bin/bash
# Runs programs of the standard library as they are; installs and imports are noted only.
case "$*" in
    -) case $0 in # the environment's own packages come first
            .venv/*) PYTHONPATH=.venv:outside exec {python} -S - ;;
            *) PYTHONPATH=outside exec {python} -S - ;;
        esac ;;
    "-m venv"*) mkdir -p .venv/bin && cp "$(dirname "$0")/stand-in" .venv/bin/python ;;
    *freeze*) echo torch==2.9.0+nv; echo numpy==1.26.4; echo rich==1 ;;
    *"uninstall -y torch"*) rm -rf .venv/torch ;;
    *"force-reinstall torch"*) mkdir -p .venv/torch && echo 'cuda = "13.0"' >.venv/torch/version.py ;;
    *"install"*torch==*) mkdir -p .venv/torch && echo 'cuda = None' >.venv/torch/version.py ;;
    "-c import torch") [ -e .venv/torch ] ;;
esac
ended=$?
echo "$*" >>asked.txt
exit $ended
"""


@dataclass
class Machine:
    """A checkout on a machine of its own."""

    folder: Path

    def run(self) -> tuple[str, list[str]]:
        """What the script says, and what it asked the interpreters to do."""
        asked = self.folder / "asked.txt"
        asked.unlink(missing_ok=True)
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {"PATH": path, "PYTHON": str(self.folder / "bin" / "stand-in")}
        ended = subprocess.run(
            ["bash", "scripts/setup_env.sh"],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, asked.read_text().splitlines() if asked.exists() else []

    def command(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def gpu(self) -> None:
        self.command("nvidia-smi", "echo GPU 0")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    made = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    made.command("stand-in", STAND_IN.partition("\n")[2].format(python=sys.executable))
    made.command("uname", "echo x86_64")
    made.command("nvidia-smi", "exit 9")  # the driver is not loaded
    return made


def installs(asked: list[str]) -> list[str]:
    return [line for line in asked if "torch" in line and "install" in line]


def test_a_second_run_does_nothing(machine: Machine) -> None:
    said, asked = machine.run()
    assert f"{TORCH}+cpu" in installs(asked)[0]
    assert "ready" in said
    said, asked = machine.run()
    assert "ready" not in said
    assert not installs(asked)


def test_an_environment_for_the_cpu_changes_when_there_is_a_gpu(machine: Machine) -> None:
    machine.run()
    machine.gpu()
    said, asked = machine.run()
    assert "installing PyTorch for the NVIDIA GPU" in said
    assert [f"--force-reinstall {TORCH}" in line for line in installs(asked)] == [True]
    assert machine.run()[0] == ""
    machine.command("nvidia-smi", "exit 9")
    assert not installs(machine.run()[1])  # it runs on the CPU, too


def test_a_board_keeps_the_torch_that_was_built_for_it(machine: Machine) -> None:
    machine.run()  # for the CPU
    machine.gpu()
    machine.command("uname", "echo aarch64")
    (machine.folder / "outside" / "torch").mkdir(parents=True)
    (machine.folder / "outside" / "torch" / "version.py").write_text("cuda = '12.6'\n")
    said, asked = machine.run()
    assert "using the PyTorch of" in said
    assert any("-m venv --system-site-packages" in line for line in asked)
    assert [line.split()[-3:] for line in installs(asked)] == [["uninstall", "-y", "torch"]]
    pins = (machine.folder / ".venv" / "constraints.txt").read_text().splitlines()
    assert [pin for pin in pins if pin.startswith(("torch==", "numpy=="))] == [
        "torch==2.9.0+nv",
        "numpy==1.26.4",
    ]
    assert any("install --no-build-isolation" in a and ".venv/constraints.txt" in a for a in asked)
