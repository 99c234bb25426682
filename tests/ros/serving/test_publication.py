"""Chunks of several robots come out together, and none after the reset that ended its episode."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from std_srvs.srv import Trigger

from tests.ros.graph import Graph
from tests.ros.policy_rig import ROBOTS, T0, Pair


@pytest.fixture
def pair(graph: Graph, checkpoint: Any) -> Pair:
    """Two robots that have been observed, and are planned for in one batch when somebody says so."""
    made = Pair(graph, checkpoint)
    assert made.parts.worker.stop(10)
    for robot in ROBOTS:
        made.observe(robot, T0, 100.0)
        planner = made.parts.robots[robot].planner
        graph.wait(lambda planner=planner: len(planner.observation_ages_s(T0)) == 2)
    return made


class Gate:
    """A publication that stops half-way until it may go on."""

    def __init__(self, publish: Callable[[Any], None]) -> None:
        self._publish = publish
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, chunk: Any) -> None:
        self._publish(chunk)
        self.reached.set()
        assert self.open.wait(30)


@contextmanager
def planning_up_to(pair: Pair, robot: str) -> Iterator[Gate]:
    """Both chunks are there, and that of `robot` is being published."""
    topics = pair.parts.robots[robot].topics
    topics.publish_chunk = gate = Gate(topics.publish_chunk)
    planning = threading.Thread(target=pair.node._plan)
    planning.start()
    assert gate.reached.wait(30)
    try:
        yield gate
    finally:
        gate.open.set()
        planning.join()


def test_no_chunk_of_an_episode_comes_out_after_its_reset(graph: Graph, pair: Pair) -> None:
    with planning_up_to(pair, "left"):
        assert graph.call(Trigger, "right/policy_node/reset", Trigger.Request()).success
    graph.wait(lambda: pair.infos["left"])
    graph.spin_for(0.3)
    counts = {robot: (len(pair.chunks[robot]), len(pair.infos[robot])) for robot in ROBOTS}
    assert counts == {"left": (1, 1), "right": (0, 0)}


def test_a_reset_is_not_answered_while_a_chunk_is_being_published(pair: Pair) -> None:
    with planning_up_to(pair, "right") as gate:
        robot = pair.parts.robots["right"]
        reset = threading.Thread(target=robot.begin_episode, args=[7])
        reset.start()
        reset.join(0.3)
        assert reset.is_alive()
        gate.open.set()
        reset.join(10)
        assert not reset.is_alive()


def test_no_robot_waits_for_what_is_told_of_another(pair: Pair) -> None:
    order: list[str] = []
    for robot in ROBOTS:
        topics = pair.parts.robots[robot].topics
        topics.publish_chunk = lambda _, robot=robot: order.append(f"chunk {robot}")
        topics.publish_info = lambda _, robot=robot: order.append(f"info {robot}")
    pair.node._plan()
    assert order == ["chunk left", "chunk right", "info left", "info right"]
