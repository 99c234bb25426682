"""Tests of the Aloha task run where gym-aloha is installed, which CI sees to."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from sim.aloha.env import Aloha

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("gym_aloha") is None:
    if os.environ.get("PARA_POLICY_REQUIRE_ROS") and sys.version_info < (3, 13):
        raise RuntimeError("continuous integration must test sim/aloha; run make setup")
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def scene() -> Aloha:
    """Loading the meshes takes longer than an episode; each test begins with its own seed."""
    return Aloha()
