"""A loop for each fault; whatever the fault, a judge checks every command at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ros.faults.loop import Loop
    from tests.ros.graph import Graph


@pytest.fixture(scope="session")
def poses_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose actions are positions in space."""
    from tests.ros.faults.loop import save_policy

    return save_policy(tmp_path_factory.mktemp("poses"))


@pytest.fixture
def make_loop(graph: Graph, poses_checkpoint: Path) -> Iterator[Callable[..., Loop]]:
    from tests.ros.faults.loop import Loop

    made: list[Loop] = []

    def make(checkpoint: Path = poses_checkpoint, **options: object) -> Loop:
        made.append(Loop(graph, checkpoint, **options))
        return made[-1]

    yield make
    for loop in made:
        loop.judge.check()
        assert loop.judge.commands, "a judge who hears nothing proves nothing"


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """A robot that moves."""
    made = make_loop()
    made.wait_for_motion()
    return made
