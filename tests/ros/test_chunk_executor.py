from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from para_policy.execution.chunk import ActionChunk
from para_policy.ros.chunk_executor import ChunkExecutor
from para_policy.ros.graph import qos_for
from para_policy.ros.messages.conversions import chunk_to_message, ns_to_stamp
from tests.ros.graph import Graph

NAMES = ["x", "y"]
DT_NS = 100_000_000
T0 = 50 * 10**9


def make_message(stamp_ns: int, steps: int = 8, tag: float = 0.0) -> JointTrajectory:
    actions = np.stack([np.arange(float(steps)), np.full(steps, tag)], axis=1)
    return chunk_to_message(ActionChunk(stamp_ns, DT_NS, actions), NAMES)


class Rig:
    def __init__(self, graph: Graph, **parameters: Any) -> None:
        self.graph = graph
        graph.add(ChunkExecutor, **{"auto_enable": True, "joint_names": NAMES, **parameters})
        self.commands = graph.listen(Float64MultiArray, "chunk_executor/command")
        self.diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
        qos = qos_for(parameters.get("lockstep", False))
        self.chunks = graph.talk(JointTrajectory, "action_chunk", qos)
        graph.wait(lambda: graph.probe.count_publishers("chunk_executor/command"))

    def played(self) -> list[list[float]]:
        return [list(command.data) for command in self.commands]

    def messages(self) -> list[str]:
        return [status.message for array in self.diagnostics for status in array.status]


@pytest.fixture
def rig(graph: Graph) -> Callable[..., Rig]:
    return lambda **parameters: Rig(graph, **parameters)


def test_plays_each_action_in_its_time_and_then_holds(rig: Callable[..., Rig]) -> None:
    made = rig()
    began = time.time_ns()
    made.chunks.publish(make_message(began - 2 * DT_NS))  # two actions are past already
    made.graph.wait(lambda: len(made.commands) > 3)
    made.graph.spin_for((began + 6.5 * DT_NS - time.time_ns()) / 1e9)
    actions = [command[0] for command in made.played()]
    assert actions == sorted(actions)
    assert actions[0] in (2, 3, 4)
    assert actions[-1] == 7
    count = len(made.commands)
    made.graph.spin_for(0.3)
    assert len(made.commands) == count
    made.graph.wait(lambda: "holding: chunk ran out" in made.messages())


def test_silent_until_enabled(rig: Callable[..., Rig]) -> None:
    made = rig(auto_enable=False)
    made.chunks.publish(make_message(time.time_ns(), steps=100))
    made.graph.spin_for(0.3)
    assert not made.commands
    assert made.graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=True)).success
    made.graph.wait(lambda: made.commands)
    assert made.graph.call(SetBool, "chunk_executor/enable", SetBool.Request(data=False)).success
    made.graph.spin_for(0.1)
    count = len(made.commands)
    made.graph.spin_for(0.2)
    assert len(made.commands) == count


@pytest.mark.parametrize(
    ("age_steps", "changes", "reason"),
    [
        (20, {}, "too late"),
        (0, {"joint_names": ["y", "x"]}, "expected ['x', 'y']"),
        (0, {"points": []}, "positions"),
    ],
)
def test_bad_chunk_is_refused_with_a_reason(
    rig: Callable[..., Rig], age_steps: int, changes: dict[str, Any], reason: str
) -> None:
    made = rig()
    message = make_message(time.time_ns() - age_steps * DT_NS)
    for name, value in changes.items():
        setattr(message, name, value)
    made.chunks.publish(message)
    made.graph.wait(lambda: any(reason in text for text in made.messages()))
    assert not made.commands


def test_without_joint_names_the_first_chunk_says_which_joints(rig: Callable[..., Rig]) -> None:
    made = rig(joint_names=[""])
    now = time.time_ns()
    made.chunks.publish(make_message(now, steps=50, tag=1))
    made.graph.wait(lambda: made.commands)
    swapped = make_message(now + 1, steps=50, tag=2)
    swapped.joint_names = NAMES[::-1]
    made.chunks.publish(swapped)
    made.graph.wait(lambda: any("expected ['x', 'y']" in text for text in made.messages()))
    made.chunks.publish(make_message(now + 2, steps=50, tag=3))
    made.graph.wait(lambda: made.played()[-1][1] == 3)
    assert {command[1] for command in made.played()} == {1, 3}


def test_joints_in_another_order_than_their_states_are_refused(rig: Callable[..., Rig]) -> None:
    made = rig(joint_names=[""], state_joints=NAMES[::-1], velocity_max=[100.0])
    made.chunks.publish(make_message(time.time_ns(), steps=50))
    reason = "state_joints in another order: ['y', 'x']"
    made.graph.wait(lambda: any(reason in text for text in made.messages()))


def test_nan_is_refused_and_the_chunk_in_force_goes_on(rig: Callable[..., Rig]) -> None:
    made = rig()
    now = time.time_ns()
    made.chunks.publish(make_message(now, steps=50, tag=1))
    made.graph.wait(lambda: made.commands)
    bad = make_message(now + 1, steps=50, tag=2)
    bad.points[3].positions = [float("nan"), 2.0]
    made.chunks.publish(bad)
    made.graph.wait(lambda: any("not finite" in text for text in made.messages()))
    count = len(made.commands)
    made.graph.wait(lambda: len(made.commands) > count)
    assert {command[1] for command in made.played()} == {1}
    warned = [s for a in made.diagnostics for s in a.status if "not finite" in s.message]
    assert warned[0].level == DiagnosticStatus.WARN


def test_lockstep_answers_each_tick_once(rig: Callable[..., Rig]) -> None:
    made = rig(lockstep=True)
    clock = made.graph.talk(Clock, "/clock")

    def tick(step: int) -> None:
        clock.publish(Clock(clock=ns_to_stamp(T0 + step * DT_NS)))

    tick(0)
    made.graph.spin_for(0.2)
    assert not made.commands  # no chunk covers the tick yet
    made.chunks.publish(make_message(T0, steps=4))
    made.graph.wait(lambda: made.played() == [[0, 0]])
    for step in (0, 1, 1, 2, 3, 4):  # a repeated tick has been answered already
        tick(step)
    made.graph.wait(lambda: len(made.commands) == 4)
    made.graph.spin_for(0.2)
    assert made.played() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    made.chunks.publish(make_message(T0 + 4 * DT_NS, steps=4, tag=9))
    made.graph.wait(lambda: len(made.commands) == 5)
    assert made.played()[-1] == [0, 9]


def test_lockstep_chunk_may_overtake_its_tick(rig: Callable[..., Rig]) -> None:
    made = rig(lockstep=True)
    clock = made.graph.talk(Clock, "/clock")
    made.chunks.publish(make_message(T0))
    made.graph.wait(lambda: made.played() == [[0, 0]])
    for step in (0, 1):
        clock.publish(Clock(clock=ns_to_stamp(T0 + step * DT_NS)))
    made.graph.wait(lambda: made.played() == [[0, 0], [1, 0]])
