"""Tests over real ROS, with the domain and the graph of `tests/ros`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.ros.conftest import checkpoint, domain_id, graph, mark_ros

__all__ = ["checkpoint", "domain_id", "graph"]

collect_ignore_glob = [] if importlib.util.find_spec("rclpy") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_ros(items, Path(__file__).parent)
