"""Nodes as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.signals import wait_for
from tests.test_children import runs

PARENT = """
import sys, time
from sim.ros.processes import RosProcesses

with RosProcesses(int(sys.argv[1])) as processes:
    processes.start("chunk_executor", "para_policy.ros.chunk_executor", {})
    print(processes.pid("chunk_executor"), flush=True)
    time.sleep(600)
"""


def test_a_killed_run_leaves_no_node(domain_id: int) -> None:
    command = [sys.executable, "-c", PARENT, str(domain_id)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        node = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        try:
            wait_for(lambda: not runs(node), 60)
        finally:
            if runs(node):
                os.kill(node, signal.SIGKILL)
