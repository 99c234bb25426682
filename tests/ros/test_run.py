"""Processes of nodes, ended at the wrong moment or without what they need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Empty
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.messages.conversions import chunk_to_message
from tests.ros.graph import Graph

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
EXECUTOR = """
import sys
from std_msgs.msg import Empty
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.run import run_node

class Failing(ChunkExecutor):
    def __init__(self):
        super().__init__()
        self.create_subscription(Empty, "break", self.work, 1)

    def work(self, _):
        raise OSError("a bug")

sys.exit(run_node(Failing))
"""
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
PARTING = """
import sys
import rclpy
from rclpy.node import Node
from para_policy.ros.run import run_node

class Parting(Node):
    def __init__(self):
        super().__init__("parting")
        self.create_timer(0.1, self.work)

    def work(self):
        print("ready", flush=True)
        if sys.argv[1:] == ["fail"]:
            raise OSError("a bug")

    def destroy_node(self):
        print("connected" if rclpy.ok() else "cut off", file=sys.stderr)
        super().destroy_node()

sys.exit(run_node(Parting, []))
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path, domain_id: int) -> Iterator[Run]:
    """Start Python with `code`, in a folder with the module `slow`."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, slow: str = "", *args: str, deaf: bool = False) -> subprocess.Popen[str]:
        (tmp_path / "slow.py").write_text(slow)
        paths = os.pathsep.join([str(tmp_path), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args],
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


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """A signal as soon as it has said that it is ready; what it says afterwards on stderr."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_may_still_publish_while_it_is_torn_down(run: Run, number: int) -> None:
    process = run(PARTING)
    assert interrupt(process, number) == "connected\n"
    assert process.returncode == 0


def test_so_it_may_when_a_callback_fails(run: Run) -> None:
    process = run(PARTING, "", "fail")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert errors.startswith("connected\n")
    assert errors.endswith("OSError: a bug\n")
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_an_executor_that_ends_leaves_no_twist_behind(
    run: Run, graph: Graph, number: int | None
) -> None:
    """Without a signal it ends by an error in a callback."""
    parameters = {"output": "twist_stamped", "frame_id": "base", "auto_enable": "true"}
    given = [part for pair in parameters.items() for part in ("-p", "{}:={}".format(*pair))]
    process = run(EXECUTOR, "", "--ros-args", *given)
    failure = graph.talk(Empty, "break")
    twists = graph.listen(TwistStamped, "chunk_executor/command")
    chunks = graph.talk(JointTrajectory, "action_chunk")
    graph.wait(lambda: graph.probe.count_publishers("chunk_executor/command"))
    chunk = ActionChunk(time.time_ns(), 10**9, np.full((30, 6), 0.3))
    chunks.publish(chunk_to_message(chunk, list("abcdef")))
    graph.wait(lambda: len(twists) > 5)
    if number:
        process.send_signal(number)
    else:
        failure.publish(Empty())
    graph.wait(lambda: process.poll() is not None)
    graph.spin_for(0.3)
    assert [twist.twist.linear.x for twist in twists[-2:]] == [0.3, 0.0]
    assert process.returncode == (0 if number else 1)


def test_a_missing_package_is_named_in_one_line(run: Run) -> None:
    process = run(START, "import no_such_package")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 3
    assert errors.count("\n") == 1
    assert errors.startswith("error: slow cannot start: No module named 'no_such_package'")


def test_a_domain_that_there_is_not_is_named_in_one_line(run: Run) -> None:
    process = run(f"import os\nos.environ['ROS_DOMAIN_ID'] = '300'\n{EXECUTOR}")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert errors == "error: ROS_DOMAIN_ID is '300'; expected 0 to 232, the same for all nodes\n"


def test_a_limit_that_stands_twice_in_the_parameter_file_is_refused(
    run: Run, tmp_path: Path
) -> None:
    """ROS would take the last one: none."""
    file = tmp_path / "params.yaml"
    limits = "    velocity_max: [0.1]\n    velocity_max: [.inf]\n"
    file.write_text(f"/**/chunk_executor:\n  ros__parameters:\n{limits}")
    process = run(EXECUTOR, "", "--ros-args", "--params-file", str(file))
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert "key 'velocity_max' stands in line 3 and in line 4; expected it once" in errors
