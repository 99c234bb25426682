"""One recorded run that many tests look at; a recorder in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ros.bags.runs import RecordedRun
from tests.ros.graph import Graph


@pytest.fixture(scope="module")
def recorded(domain_id: int, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bag of seven chunks in two episodes, warm starts in both."""
    graph = Graph(domain_id)
    try:
        bag = tmp_path_factory.mktemp("recorded") / "bag"
        # So loose that a chunk shows from which other one it was started.
        run = RecordedRun(graph, bag, checkpoint, tolerance=0.1)
        run.step(5)
        run.reset()
        run.step(2)
        return run.finish()
    finally:
        graph.close()
