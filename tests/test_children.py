"""Processes whose parent was killed, or that hear nothing, are gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from para_policy.children import descendants, end_all
from tests.signals import alive, check_child_ends_with, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PARENT = """
import multiprocessing, os, subprocess, sys, time
from para_policy.children import end_with_parent, tied

def work():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    if sys.argv[1] == "multiprocessing":
        multiprocessing.get_context("spawn").Process(target=work).start()
    else:
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        subprocess.Popen(tied([sys.executable, "-c", code]), start_new_session=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["multiprocessing", "subprocess"])
def test_a_killed_parent_takes_its_child_along(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    check_child_ends_with([sys.executable, str(script), kind], 30)


def test_what_hears_nothing_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("para_policy.children._PATIENCE_S", 0.2)
    kept = subprocess.Popen(["sleep", "600"])
    before = descendants()
    # A child with a child of its own, which is stopped, as one that gets no CPU time is.
    grandchild = "sleep 600 & kill -STOP $!; echo $!; wait"
    child = subprocess.Popen(["sh", "-c", grandchild], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    number = int(child.stdout.readline())
    try:
        end_all(child.terminate, before)
        wait_for(lambda: not alive(number), 30)
        assert child.wait(30) == -signal.SIGTERM
        assert kept.poll() is None
    finally:
        for process in (kept, child):
            process.kill()
            process.wait()
        child.stdout.close()
