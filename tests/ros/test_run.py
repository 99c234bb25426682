"""Processes of nodes, ended at the wrong moment or without what they need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LIMIT_S = 20.0
"""For a process to come up and to end; those that are stuck would take a minute and more."""

IMPORTING = """
import time
print("ready", flush=True)
try:
    time.sleep(100)
except BaseException:
    pass  # as packages do
def main():
    time.sleep(100)
"""
START = "import sys; from para_policy.ros.start import start_node; sys.exit(start_node('slow'))"
STUCK = """
import sys, time
import rclpy
from rclpy.node import Node
from para_policy.ros.run import run_node

class Stuck(Node):
    def __init__(self):
        super().__init__("stuck")
        self.create_timer(0.1, lambda: print("ready", flush=True))

    def destroy_node(self):
        with rclpy.utilities.get_default_context()._lock:
            time.sleep(100)

sys.exit(run_node(Stuck))
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path, domain_id: int) -> Iterator[Run]:
    """Start Python with `code`, in a folder with the module `slow`."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, slow: str = "", *, deaf: bool = False) -> subprocess.Popen[str]:
        (tmp_path / "slow.py").write_text(slow)
        paths = os.pathsep.join([str(tmp_path), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": paths, "ROS_DOMAIN_ID": str(domain_id)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if deaf else None,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Ctrl-C as soon as it has said that it is ready; what it says afterwards on stderr."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    return errors


@pytest.mark.parametrize("deaf", [False, True])
def test_a_node_that_imports_ends_at_once_and_says_nothing(run: Run, deaf: bool) -> None:
    """Also where a shell has started it in the background, which makes it ignore Ctrl-C."""
    process = run(START, IMPORTING, deaf=deaf)
    assert interrupt(process) == ""
    assert process.returncode == 0


def test_a_tear_down_that_hangs_does_not_keep_the_process(run: Run) -> None:
    process = run(STUCK)
    interrupt(process)
    assert process.returncode == 0


def test_a_missing_package_is_named_in_one_line(run: Run) -> None:
    process = run(START, "import no_such_package")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3
    assert errors.count("\n") == 1
    assert errors.startswith("error: slow cannot start: No module named 'no_such_package'")
