"""A ROS domain for each test worker. Without ROS 2 these tests are not collected."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from para_policy import load_policy
from para_policy.checkpoints.calibration import save_sizes
from para_policy.inference import Size
from tests.checkpoint import calibrate_tiny_checkpoint, save_tiny_checkpoint

if TYPE_CHECKING:
    from tests.ros.graph import Graph

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("rclpy") is None:
    collect_ignore_glob = ["*.py", "*/*.py"]
else:
    import tests.ros.graph  # noqa: F401  sets what must be set before messages are imported


def mark_ros(items: list[pytest.Item], folder: Path) -> None:
    """All tests in `folder` need ROS."""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.ros)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_ros(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def domain_id() -> int:
    """PARA_POLICY_TEST_DOMAIN, for the first worker, moves a second run away from the first."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(os.environ.get("PARA_POLICY_TEST_DOMAIN", 70)) + int(worker.removeprefix("gw"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that samples in ten steps, calibrated for them; OpenVINO compiles two sizes, not 17."""
    directory = save_tiny_checkpoint(tmp_path_factory.mktemp("policy"), train_timesteps=10)
    calibrate_tiny_checkpoint(directory, "ddpm", 10)
    if importlib.util.find_spec("openvino") is not None:
        key = load_policy(directory, engine="openvino").runtime.expected_key
        save_sizes(directory, key, (Size(1), Size(20)))
    return directory


@pytest.fixture
def graph(domain_id: int) -> Iterator[Graph]:
    from tests.ros.graph import Graph

    graph = Graph(domain_id)
    yield graph
    graph.close()


@pytest.fixture
def others(domain_id: int) -> Iterator[Graph]:
    """Another participant in the same domain: in one, a topic can have one type only."""
    from tests.ros.graph import Graph

    graph = Graph(domain_id)
    yield graph
    graph.close()
