"""Simulated time that jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage

from para_policy.ros.messages.conversions import ns_to_stamp
from tests.ros.faults.loop import Loop
from tests.ros.graph import Graph

JUMP_NS = 20 * 10**9


class SimulatedTime:
    """`/clock` at 100 Hz, as fast as real time, which can be set."""

    def __init__(self, graph: Graph) -> None:
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.runs = True
        self.offset_ns = 100 * 10**9 - self._steady.now().nanoseconds
        self._publisher = graph.probe.create_publisher(ClockMessage, "/clock", 10)
        graph.probe.create_timer(0.01, self._tick, clock=self._steady)

    def now_ns(self) -> int:
        return int(self._steady.now().nanoseconds) + self.offset_ns

    def _tick(self) -> None:
        if self.runs:
            self._publisher.publish(ClockMessage(clock=ns_to_stamp(self.now_ns())))


@pytest.mark.parametrize(
    ("jump_ns", "spoken"),
    [(-JUMP_NS, "ahead of the clock"), (JUMP_NS, "s old, the limit is 0.300 s")],
)
def test_a_jump_of_the_clock_holds_the_robot_until_observations_follow(
    graph: Graph, make_loop: Callable[..., Loop], jump_ns: int, spoken: str
) -> None:
    time = SimulatedTime(graph)
    simulated = {"use_sim_time": True}
    loop = make_loop(policy=simulated, executor=simulated, now_ns=time.now_ns)
    loop.wait_for_motion()
    loop.judge.time_may_go_back()
    loop.sensors.feed = lambda *_: None  # the sensors restart, too
    time.offset_ns += jump_ns
    loop.wait_for_hold(spoken)
    loop.sensors.feed = loop.sensors.send
    loop.wait_for_motion()
    loop.wait_for_motion()


def test_a_clock_that_stands_still_stops_the_commands(
    graph: Graph, make_loop: Callable[..., Loop]
) -> None:
    time = SimulatedTime(graph)
    simulated = {"use_sim_time": True}
    loop = make_loop(policy=simulated, executor=simulated, now_ns=time.now_ns)
    loop.wait_for_motion()
    time.runs = False
    graph.spin_for(0.1)
    known = len(loop.judge.commands)
    graph.spin_for(0.5)
    assert len(loop.judge.commands) == known
    time.runs = True
    loop.wait_for_motion()
