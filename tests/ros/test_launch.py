"""The launch files under the real `ros2 launch`, where there is one with this package installed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from sim.ros.simulators import ARM_COMMANDS
from tests.ros.arm import ArmController, save_arm_checkpoint
from tests.ros.graph import Graph
from tests.signals import alive
from tests.sim.aloha.policy import save_aloha_checkpoint

ROS2 = shutil.which("ros2")
START_S = 90.0
"""For up to five processes that import torch at the same time."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ROS2 is None, reason="there is no `ros2 launch`"),
]
ROBOTS = ("left", "right")


class Launch:
    """A running `ros2 launch para_policy FILE ARGUMENTS`."""

    def __init__(self, log: Path, domain_id: int, file: str, arguments: dict[str, object]) -> None:
        self._log = log
        env = dict(os.environ, ROS_DOMAIN_ID=str(domain_id), OMP_NUM_THREADS="1")
        env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):
            # The test runs on wheels of ROS, whose libraries another environment must not load.
            env.pop("LD_LIBRARY_PATH", None)
            env["AMENT_PREFIX_PATH"] = str(Path(str(ROS2)).parents[1])
        given = [f"{name}:={value}" for name, value in arguments.items()]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(ROS2), "launch", "para_policy", file, *given],
                env={**env, "PATH": f"{Path(str(ROS2)).parent}:{env['PATH']}"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def pids(self, name: str = r"\w+") -> list[int]:
        """Of the processes with this name, in the order in which they were started."""
        started = rf"\[{name}-\d+\]: process started with pid \[(\d+)\]"
        return [int(pid) for pid in re.findall(started, self.text())]

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)

    def end(self) -> None:
        for pid in (*self.pids(), self.process.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def launch(tmp_path: Path, domain_id: int) -> Iterator[Callable[..., Launch]]:
    started: list[Launch] = []

    def start(file: str = "policy.launch.py", **arguments: object) -> Launch:
        started.append(Launch(tmp_path / "launch.log", domain_id, file, arguments))
        return started[-1]

    yield start
    for run in started:
        run.end()
        print(run.text())  # pytest shows it where a test has failed


def test_a_killed_policy_node_is_active_again_by_itself(
    graph: Graph, launch: Callable[..., Launch], checkpoint: Path
) -> None:
    chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
    commands = graph.listen(Float64MultiArray, "chunk_executor/command")
    run = launch(checkpoint=checkpoint, sim=True, respawn_delay_s=0.2)
    graph.wait(lambda: len(chunks) > 2 and len(commands) > 2, START_S)
    for count in (1, 2):
        os.kill(run.pids("policy_node")[-1], signal.SIGKILL)
        graph.wait(lambda count=count: len(run.pids("policy_node")) == 1 + count)
        graph.spin_for(0.5)  # what the killed process has sent is here
        known = len(chunks), len(commands)
        graph.wait(
            lambda known=known: len(chunks) > known[0] + 2 and len(commands) > known[1] + 2, START_S
        )
    assert len(run.pids()) == 5, "only the policy node was started again"
    assert run.interrupt() == 0, run.text()
    assert not [pid for pid in run.pids() if alive(pid)]
    assert "Abandoning wait" not in run.text(), "a request went to the dead"


def test_a_killed_executor_comes_back_disabled(
    graph: Graph, launch: Callable[..., Launch], checkpoint: Path
) -> None:
    commands = graph.listen(Float64MultiArray, "chunk_executor/command")
    statuses = graph.listen(DiagnosticArray, "/diagnostics")

    def says(word: str) -> bool:
        newest = [s for m in statuses for s in m.status if s.name == "chunk_executor: commands"]
        return bool(newest) and word in newest[-1].message

    run = launch(checkpoint=checkpoint, sim=True, auto_enable=False, respawn_delay_s=0.2)
    graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=True))
    graph.wait(lambda: len(commands) > 2, START_S)
    os.kill(run.pids("chunk_executor")[0], signal.SIGKILL)
    graph.wait(lambda: len(run.pids("chunk_executor")) == 2)
    graph.spin_for(0.5)
    statuses.clear()
    known = len(commands)
    graph.wait(lambda: says("disabled"))
    graph.spin_for(1.0)
    assert len(commands) == known
    assert run.interrupt() == 0, run.text()


@pytest.mark.parametrize(
    ("node", "line", "reason"),
    [
        ("chunk_executor", "output: smoke", "output is 'smoke'; expected"),
        ("chunk_executor", "velocity_maxx: [1.0]", "velocity_maxx (did you mean velocity_max?)"),
        ("chunk_executor", "command_rate_hz: 50", "'command_rate_hz' to '50' of type 'INTEGER'"),
        (
            "chunk_executor",
            "velocity_max: [0.1]\n    velocity_max: [.inf]",
            "key 'velocity_max' stands in line 3 and in line 4; expected it once",
        ),
        ("policy_node", "tolerence: 0.1", "tolerence (did you mean tolerance?)"),
    ],
)
def test_a_wrong_parameter_ends_the_launch_with_one_line_and_a_code(
    launch: Callable[..., Launch],
    checkpoint: Path,
    tmp_path: Path,
    node: str,
    line: str,
    reason: str,
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"/**/{node}:\n  ros__parameters:\n    {line}\n")
    run = launch(checkpoint=checkpoint, params_file=params)
    assert run.process.wait(START_S) == 1
    assert reason in run.text()
    assert re.search(rf"a parameter of {node}-\d is not valid", run.text())
    # The other node was told to end while it imported.
    assert "Traceback" not in run.text()
    assert len(run.pids(node)) == 1
    assert not [pid for pid in run.pids() if alive(pid)]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("control_rate_hz", "fast", "expected a number"),
        ("respawn_delay_s", "soon", "expected a number"),
        ("sim", "maybe", "expected true or false"),
        ("log_level", "loud", "expected one of debug"),
        ("params_file", "/nowhere.yaml", "expected a file"),
        ("params_file", __file__, "expected valid YAML"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_starts(
    launch: Callable[..., Launch], checkpoint: Path, name: str, value: str, expected: str
) -> None:
    run = launch(checkpoint=checkpoint, executer=False, **{name: value})
    assert run.process.wait(START_S) == 1
    assert f"{name}:={value}: {expected}" in run.text()
    assert "executer is no argument of policy.launch.py; did you mean executor?" in run.text()
    assert not run.pids()


@pytest.mark.parametrize("file", ["policy.launch.py", "arm.launch.py"])
def test_a_domain_that_there_is_not_ends_the_launch_with_one_line(
    tmp_path: Path, file: str, checkpoint: Path
) -> None:
    run = Launch(tmp_path / "launch.log", 300, file, {"checkpoint": checkpoint})
    assert run.process.wait(START_S) == 1
    assert "ROS_DOMAIN_ID is '300'; expected 0 to 232" in run.text()
    assert not run.pids()


def test_every_robot_has_an_executor_in_its_namespace(
    graph: Graph, launch: Callable[..., Launch], checkpoint: Path
) -> None:
    run = launch(checkpoint=checkpoint, sim=True, robots=",".join(ROBOTS), log_level="warn")
    commands = [
        graph.listen(Float64MultiArray, f"{robot}/chunk_executor/command") for robot in ROBOTS
    ]
    graph.wait(lambda: all(len(received) > 2 for received in commands), START_S)
    # Names of nodes are told apart from their topics, and may come later.
    expected = {("chunk_executor", "/left"), ("pusht_sim", "/right"), ("policy_node", "/")}
    graph.wait(lambda: expected <= set(graph.probe.get_node_names_and_namespaces()))
    assert len(run.pids()) == 5
    assert run.interrupt() == 0, run.text()
    assert not re.search(r"\] \[INFO\] \[\d", run.text()), "a node says more than it was asked to"


@pytest.mark.parametrize("direct", ["false", "true"])
def test_the_arm_example_reaches_the_controller(
    graph: Graph, launch: Callable[..., Launch], tmp_path: Path, direct: str
) -> None:
    arm = graph.add(ArmController)
    checkpoint = save_arm_checkpoint(tmp_path / "arm")
    run = launch("arm.launch.py", checkpoint=checkpoint, direct=direct)
    if direct == "false":
        graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=True))
    graph.wait(lambda: len(arm.received) > 2, START_S)
    nodes, points = (1, 8) if direct == "true" else (2, 1)
    assert len(arm.received[-1].points) == points
    assert len(run.pids()) == nodes
    assert run.interrupt() == 0, run.text()


def test_chunks_of_several_arms_go_to_the_controller_of_each(
    graph: Graph, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    checkpoint = save_arm_checkpoint(tmp_path / "arm")
    run = launch("arm.launch.py", checkpoint=checkpoint, direct="true", robots=",".join(ROBOTS))
    topics = [f"/{robot}/joint_trajectory_controller/joint_trajectory" for robot in ROBOTS]
    graph.wait(lambda: all(graph.probe.count_publishers(topic) for topic in topics), START_S)
    assert len(run.pids()) == 1, "only the policy node"


def test_an_arm_without_an_executor(
    graph: Graph, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    checkpoint = save_arm_checkpoint(tmp_path / "arm")
    run = launch("arm.launch.py", checkpoint=checkpoint, executor=False)
    graph.wait(
        lambda: run.pids() and graph.probe.count_publishers("policy_node/action_chunk"), START_S
    )
    assert len(run.pids()) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"direct": "true", "record": "bag"},
            "record:=bag: with direct:=true chunks have the topic",
        ),
        (
            {"robots": "left", "command_topic": "/arm"},
            "command_topic:=/arm: expected a relative name",
        ),
    ],
)
def test_what_an_arm_cannot_have_is_named_and_nothing_starts(
    launch: Callable[..., Launch], given: dict[str, str], expected: str
) -> None:
    run = launch("arm.launch.py", **given)
    assert run.process.wait(START_S) == 1
    assert expected in run.text()
    assert not run.pids()


def test_two_arms_take_the_place_of_a_robot(
    graph: Graph, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    pytest.importorskip("gym_aloha")
    checkpoint = save_aloha_checkpoint(tmp_path / "arms", reach=0.003, train_timesteps=100)
    statuses = graph.listen(DiagnosticArray, "/diagnostics")
    commands = [graph.listen(JointTrajectory, topic) for topic in ARM_COMMANDS.values()]
    run = launch(checkpoint=checkpoint, sim="aloha", engine="eager")
    graph.wait(lambda: all(len(received) > 50 for received in commands), START_S)
    assert len(run.pids()) == 3
    levels = {status.level for message in statuses for status in message.status}
    assert DiagnosticStatus.ERROR not in levels, "a limit was broken"
    assert run.interrupt() == 0, run.text()


def test_a_run_is_recorded(
    graph: Graph, launch: Callable[..., Launch], checkpoint: Path, tmp_path: Path
) -> None:
    chunks = graph.listen(JointTrajectory, "policy_node/action_chunk")
    bag = tmp_path / "bag"
    run = launch(checkpoint=checkpoint, sim=True, record=bag)
    graph.wait(lambda: len(chunks) > 2, START_S)
    assert run.interrupt() == 0, run.text()
    assert (bag / "metadata.yaml").is_file(), run.text()
