"""Nodes as child processes."""

from __future__ import annotations

import sys

from tests.signals import check_child_ends_with

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
    check_child_ends_with(command, 60)
